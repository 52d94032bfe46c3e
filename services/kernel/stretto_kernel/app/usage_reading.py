"""Reading what was used of workers from the view: the sums, and where they are kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from stretto_core.ids import Namespace, RunId


class Used(NamedTuple):
    """What attempts used. held_ns: of those that ended; succeeded_ns: of those with the result."""

    attempt_count: int = 0
    ended_count: int = 0
    succeeded_count: int = 0
    held_ns: int = 0
    succeeded_ns: int = 0


class UsageSums(NamedTuple):
    """What was used as of a position at least: by all, and by queue and worker, the most first."""

    position: int
    total: Used = Used()
    queues: Sequence[tuple[str, Used]] = ()
    workers: Sequence[tuple[str, Used]] = ()


class UsageView(Protocol):
    """The view that adds up usage."""

    async def usage_of(
        self, namespace: Namespace, run_id: RunId | None, *, count_max: int
    ) -> UsageSums:
        """Return the sums of a run, or of all runs (None), with so many queues and workers.

        Nothing at position 0 while there is no view. Raises Unavailable.
        """
        ...
