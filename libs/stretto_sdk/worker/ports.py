"""What the runtime needs from outside: a stream to the kernel, and executors that run bodies.

Declared here, at the consumer; gRPC (link.py), a simulated network, python bodies and processes
implement them. Everything is called on the runtime's event loop.
"""

from __future__ import annotations

from typing import Protocol

from stretto.common.v1 import payload_pb2
from stretto.run.v1 import plan_pb2
from stretto.work.v1 import work_pb2
from stretto.work.v1 import work_service_pb2 as wire

from stretto_sdk.blobs import Source
from stretto_sdk.board_link import BoardLink
from stretto_sdk.worker.effects import Ending, LeaseKey, SpawnAnswered, Stop
from stretto_sdk.worker.log_forwarder import TaskLogWriter


class Link(Protocol):
    """One open work stream. Each method raises Refusal once the stream has ended."""

    async def send(self, frame: wire.WorkRequest) -> None:
        """Hand one frame to the network; returns when the next may follow."""
        ...

    async def receive(self) -> wire.WorkResponse:
        """Return the next frame of the kernel."""
        ...

    async def close(self) -> None:
        """End the stream, and wait until what was sent is on its way. Safe to repeat."""
        ...


class Dialer(Protocol):
    """Opens work streams, one after another."""

    async def dial(self) -> Link:
        """Return a new stream; a kernel that cannot be reached may show only at its first use."""
        ...


class Reports(Protocol):
    """What an executor tells of its bodies. Reports about a body that has ended change nothing."""

    def ended(self, key: LeaseKey, ending: Ending) -> None:
        """A body ended: once per body begun, also when it was stopped."""
        ...

    def heartbeat(self, key: LeaseKey, details: payload_pb2.Payload) -> None:
        """A body is alive and this is how far it came."""
        ...

    def spawn(self, key: LeaseKey, request_id: str, tasks: tuple[plan_pb2.TaskSpec, ...]) -> None:
        """A body asks for tasks below its own; `spawn_answered` follows."""
        ...

    async def put_blob(self, key: LeaseKey, source: Source) -> payload_pb2.BlobRef:
        """Store bytes or a file in the namespace of a running body. Raises Refusal, OSError."""
        ...

    @property
    def boards(self) -> BoardLink:
        """How blackboards are reached. Raises Unimplemented when they are not."""
        ...

    def task_log(self, key: LeaseKey) -> TaskLogWriter:
        """Where a running body writes to; its outcome waits a little for the last of it."""
        ...


class Executor(Protocol):
    """Runs the bodies of one executor name. No method blocks or raises for what a body does."""

    def attach(self, reports: Reports) -> None:
        """Called once, before the first body."""
        ...

    def begin(self, assignment: work_pb2.Assignment) -> None:
        """Start a body; its ending is reported, whatever happens."""
        ...

    def stop(self, stop: Stop) -> None:
        """Ask a body to stop. Comes again to change the kind or the deadline; unknown: nothing."""
        ...

    def spawn_answered(self, answer: SpawnAnswered) -> None:
        """A spawn was committed or refused."""
        ...

    async def close(self) -> None:
        """End every body that still runs, at once, and free what they held."""
        ...
