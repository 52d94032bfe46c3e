"""The run decider's door: which facts a command makes true."""

from __future__ import annotations

from stretto_kernel.domain.run.commands import Command
from stretto_kernel.domain.run.state import RunEvent, RunState


def decide(state: RunState, command: Command) -> tuple[RunEvent, ...]:
    """Return the facts `command` makes true, in order; () when it repeats one or came too late.

    Never changes the state. All facts of one command belong into one append. The end of the run
    comes with the fact that ends its last task. Raises the refusals of `refusals`, and
    InvalidArgument or Unimplemented for a plan or value that is wrong whatever the state.
    """
    raise NotImplementedError
