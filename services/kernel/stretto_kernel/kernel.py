"""The kernel without its edge: owns a partition, and owns it again when it was lost.

The composition that the process and the simulator share: everything comes in through
`KernelPorts`, and nothing here knows gRPC, the environment or an adapter. Calls are answered
UNAVAILABLE while no ownership is at hand.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

import structlog
from stretto.common.v1.principal_pb2 import Principal
from stretto.work.v1.work_service_pb2 import WorkRequest
from stretto_core.errors import Unavailable
from stretto_core.eventlog.port import PartitionHeld, PartitionMoved

from stretto_kernel.app.admission import Admission
from stretto_kernel.dispatch.work_stream import EndStream, SendFrame, WorkStream
from stretto_kernel.owned_partition import KernelLimits, KernelPorts, OwnedPartition

ACQUIRE_AGAIN_S = 0.2


class Draining(Unavailable):
    """The kernel is ending: call the next one."""

    reason = "DRAINING"


class WorkSessionHandle:
    """The kernel's end of one work stream, for whoever carries its frames."""

    def __init__(self, partition: OwnedPartition, stream: WorkStream) -> None:
        self._partition = partition
        self._stream = stream

    def receive(self, frame: WorkRequest) -> None:
        """Act on a frame. Raises InvalidArgument, SessionReplaced: end the stream with it."""
        self._partition.streams.receive(self._stream, frame)

    @property
    def is_busy(self) -> bool:
        """Whether more was heard than was acted on: read no further frame meanwhile."""
        return self._stream.open and self._stream.busy

    def lost(self) -> None:
        """The stream ended without a goodbye. Idempotent."""
        self._partition.streams.lost(self._stream)


class Kernel:
    """One kernel on one partition.

    `start` first; then calls go to `partition`. `stop` ends in order, `abandon` as a crash would.
    """

    def __init__(self, ports: KernelPorts, limits: KernelLimits) -> None:
        self.ports = ports
        self.admission = Admission(limits.begun_weight_max)
        self._limits = limits
        self._partition: OwnedPartition | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._draining = False
        self._log = structlog.get_logger("stretto.kernel")

    async def start(self) -> None:
        """Own the partition; calls can be taken afterwards. Raises PartitionHeld, StoreDown."""
        self._own(await OwnedPartition.acquire(self.ports, self._limits))
        self._keeper = asyncio.create_task(self._keep(), name="partition-keeper")

    @property
    def partition(self) -> OwnedPartition:
        """The ownership at hand. Raises PartitionMoved, Draining."""
        if self._draining:
            raise Draining("the kernel is ending")
        if self._partition is None:
            raise PartitionMoved(
                "this kernel does not own the partition now", partition=self.ports.log.partition
            )
        return self._partition

    @property
    def is_owner(self) -> bool:
        """Whether calls can be taken."""
        return self._partition is not None and not self._draining

    def open_session(
        self, send: SendFrame, end: EndStream, principal: Principal, traceparent: str = ""
    ) -> WorkSessionHandle:
        """Open a work stream: frames go out through `send`; `end` ends it (None: in order)."""
        partition = self.partition
        stream = partition.streams.open(send, end, principal, traceparent)
        return WorkSessionHandle(partition, stream)

    async def prove_write_path(self) -> None:
        """Return once a commit or probe has succeeded that began after this call."""
        await self.partition.facts.writer.barrier()

    async def drain(self, reason: str, grace_s: float) -> None:
        """Lease nothing more, tell the workers, and give open leases `grace_s` to end."""
        partition = self._partition
        if partition is None:
            return
        await partition.drain(reason)
        with suppress(TimeoutError):
            async with asyncio.timeout(grace_s):
                await partition.leases_ended()

    async def stop(self) -> None:
        """Take no more calls, store what was decided, and release the partition."""
        self._draining = True
        if self._keeper is not None:
            self._keeper.cancel()
        partition, self._partition = self._partition, None
        if partition is not None:
            await partition.release(Draining("the kernel is ending"))

    def abandon(self) -> None:
        """End at once, as a crash would."""
        self._draining = True
        if self._keeper is not None:
            self._keeper.cancel()
        partition, self._partition = self._partition, None
        if partition is not None:
            partition.abandon(Unavailable("the kernel has stopped"))

    def _own(self, partition: OwnedPartition) -> None:
        self._partition = partition
        self.ports.keys.keep(partition.facts.writer.barrier)

    async def _keep(self) -> None:
        """When the ownership is over forget all of it, then try to own the partition again."""
        while True:
            partition = self._partition
            assert partition is not None, "the keeper runs between ownerships"
            cause = await partition.closed
            self._log.error("partition.lost", reason=cause.reason_word, exc_info=cause.__cause__)
            self._partition = None
            self.ports.keys.let_go()  # Views are read on, and the next owner may shred runs.
            try:
                await partition.give_up(cause)
            except Exception:
                # What is left of it ends with its connection; the partition is wanted all the same.
                self._log.error("partition.give_up_failed", exc_info=True)
            self._own(await self._acquire_again())

    async def _acquire_again(self) -> OwnedPartition:
        while True:
            try:
                return await OwnedPartition.acquire(self.ports, self._limits)
            except (PartitionHeld, Unavailable) as refusal:
                self._log.info("partition.not_owned", reason=refusal.reason_word)
                await asyncio.sleep(ACQUIRE_AGAIN_S)
            except Exception:
                # Whatever it is, a kernel that stopped trying would look alive and serve nobody.
                self._log.error("partition.failed", exc_info=True)
                await asyncio.sleep(ACQUIRE_AGAIN_S)
