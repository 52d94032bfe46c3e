"""What the parts of dispatch share within one ownership of a partition."""

from __future__ import annotations

from dataclasses import dataclass

from stretto_core.clock import Clock
from stretto_core.eventlog.recorded import LeaseKeys

from stretto_kernel.app.stream_host import StreamHost
from stretto_kernel.dispatch.lease_table import LeaseTable
from stretto_kernel.dispatch.own_commands import OwnCommands
from stretto_kernel.dispatch.ready_queues import ReadyQueues


@dataclass(frozen=True, slots=True)
class Shared:
    """The runs in memory, clock, the keys that sign leases, and what is derived from the runs."""

    host: StreamHost
    clock: Clock
    keys: LeaseKeys
    own: OwnCommands
    queues: ReadyQueues
    leases: LeaseTable
