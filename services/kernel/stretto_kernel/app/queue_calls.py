"""What can be asked of the settings of queues: load, decide, append, answer.

One stream a partition holds them all, since all must be known before anything is leased: one short
read when the partition is owned, whatever the number of queues.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Protocol, TypeVar

from stretto_core.eventlog.codec import Cause, Codec
from stretto_core.eventlog.port import EventLog
from stretto_core.ids import IdSource, Namespace, StreamId

from stretto_kernel.app.asking import Answered, Decided, ask
from stretto_kernel.app.fact_writer import Decider, FactWriter
from stretto_kernel.app.hosted_stream import HostedStream
from stretto_kernel.app.resident_stream import ResidentStream
from stretto_kernel.app.run_calls import Caller
from stretto_kernel.domain.queue import (
    EVENTS,
    QueueSettings,
    QueuesState,
    UpdateQueue,
    decide,
    evolve,
)

SYSTEM = Namespace("stretto-system")
"""Of facts that concern every tenant."""

Answer = TypeVar("Answer")


class Ports(Protocol):
    """What is needed of the kernel's ports."""

    @property
    def log(self) -> EventLog:
        """The record."""
        ...

    @property
    def ids(self) -> IdSource:
        """Where ids are minted."""
        ...


class QueueCalls:
    """The settings of the queues of one ownership of a partition; `fold` first.

    defaults: most open leases of queues for which no fact says it. changed, voided: see
    `ResidentStream`.
    """

    def __init__(
        self,
        ports: Ports,
        facts: FactWriter,
        *,
        defaults: Mapping[str, int],
        changed: Callable[[QueuesState], None],
        voided: Callable[[], None],
    ) -> None:
        self._ids = ports.ids
        self._stream: ResidentStream[QueuesState] = ResidentStream(
            ports.log,
            facts,
            Decider(Codec(EVENTS), decide, evolve),
            stream=StreamId(f"{ports.log.partition}-queues"),
            namespace=SYSTEM,
            new_state=partial(QueuesState, defaults),
            changed=changed,
            voided=voided,
        )

    async def fold(self) -> None:
        """Read the settings. Raises StoreDown."""
        await self._stream.fold()

    def close(self) -> None:
        """Read them no more."""
        self._stream.close()

    async def update(self, command: UpdateQueue, caller: Caller) -> Answered[QueueSettings]:
        """Change settings of a queue. Raises what `decide` refuses, StoreUnsettled."""

        def question(hosted: HostedStream[QueuesState]) -> Decided[QueueSettings]:
            cause = Cause(
                namespace=SYSTEM,
                principal=caller.principal,
                request_id=caller.request_id,
                request_digest=caller.request_digest,
                correlation_id=self._ids.uuid7(),
                traceparent=caller.traceparent,
            )
            own_facts = self._stream.take(hosted, command, cause)
            return Decided(hosted.state.of(command.queue), own_facts)

        return await ask(self._stream, self._find, question)

    async def read(self, show: Callable[[QueuesState], Answer]) -> Answer:
        """Return what `show` makes of the newest settings. Raises StoreUnsettled."""

        def question(hosted: HostedStream[QueuesState]) -> Decided[Answer]:
            return Decided(show(hosted.state), own_facts=False)

        answered = await ask(self._stream, self._find, question)
        return answered.answer

    async def _find(self, _: int) -> HostedStream[QueuesState]:
        return await self._stream.fold()
