"""The run's fold: what each recorded fact changes."""

from __future__ import annotations

from stretto_core.eventlog.recorded import Recorded

from stretto_kernel.domain.run.state import RunEvent, RunState


def evolve(state: RunState, recorded: Recorded[RunEvent]) -> None:
    """Apply one recorded fact in place; its version is the state's plus one. Never refuses."""
    raise NotImplementedError
