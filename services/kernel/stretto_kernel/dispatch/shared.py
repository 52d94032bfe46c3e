"""What the parts of dispatch share within one ownership of a partition."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import count

from stretto_core.clock import Clock
from stretto_core.eventlog.recorded import LeaseKeys

from stretto_kernel.app.stream_host import StreamHost
from stretto_kernel.dispatch.lease_table import LeaseTable
from stretto_kernel.dispatch.own_commands import OwnCommands
from stretto_kernel.dispatch.ready_queues import ReadyQueues, SessionKey


@dataclass(frozen=True, slots=True)
class Shared:
    """The runs in memory, clock, the keys that sign leases, and what is derived from the runs.

    session_keys: names for those who take work, streams and polls alike.
    """

    host: StreamHost
    clock: Clock
    keys: LeaseKeys
    own: OwnCommands
    queues: ReadyQueues
    leases: LeaseTable
    session_keys: Iterator[SessionKey] = field(default_factory=partial(count, 1))
