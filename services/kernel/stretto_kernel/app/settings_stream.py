"""Settings of a partition: one small stream of a kind, read whole when the partition is owned.

What holds must be known before the first lease or start asks for it, and the facts are few: one
short read, whatever the number of things that have settings.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar

from stretto_core.eventlog.codec import Cause
from stretto_core.eventlog.port import EventLog
from stretto_core.ids import IdSource, Namespace, StreamId

from stretto_kernel.app.asking import Answered, Decided, ask
from stretto_kernel.app.fact_writer import Decider, FactWriter
from stretto_kernel.app.hosted_stream import HostedStream
from stretto_kernel.app.resident_stream import ResidentStream
from stretto_kernel.app.run_calls import Caller

SYSTEM = Namespace("stretto-system")
"""Of facts that concern every tenant."""

State = TypeVar("State")
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


class SettingsStream(Generic[State]):
    """The settings of one kind in one ownership of a partition; `fold` first.

    kind: what the stream is named by, after the partition. new_state, changed, voided: see
    `ResidentStream`.
    """

    def __init__(
        self,
        ports: Ports,
        facts: FactWriter,
        decider: Decider,
        *,
        kind: str,
        new_state: Callable[[], State],
        changed: Callable[[State], None] = lambda _: None,
        voided: Callable[[], None] = lambda: None,
    ) -> None:
        self._ids = ports.ids
        self._stream: ResidentStream[State] = ResidentStream(
            ports.log,
            facts,
            decider,
            stream=StreamId(f"{ports.log.partition}-{kind}"),
            namespace=SYSTEM,
            new_state=new_state,
            changed=changed,
            voided=voided,
        )

    @property
    def decided(self) -> State | None:
        """The settings as decided; None while they are being read."""
        hosted = self._stream.in_memory
        return None if hosted is None else hosted.state

    async def fold(self) -> None:
        """Read the settings. Raises StoreDown."""
        await self._stream.fold()

    def close(self) -> None:
        """Read them no more."""
        self._stream.close()

    async def update(
        self, command: Any, caller: Caller, show: Callable[[State], Answer]
    ) -> Answered[Answer]:
        """Decide `command`, and answer what `show` makes of the settings then.

        Raises what the decider refuses, StoreUnsettled.
        """

        def question(hosted: HostedStream[State]) -> Decided[Answer]:
            cause = Cause(
                namespace=SYSTEM,
                principal=caller.principal,
                request_id=caller.request_id,
                request_digest=caller.request_digest,
                correlation_id=self._ids.uuid7(),
                traceparent=caller.traceparent,
            )
            own_facts = self._stream.take(hosted, command, cause)
            return Decided(show(hosted.state), own_facts)

        return await ask(self._stream, self._find, question)

    async def read(self, show: Callable[[State], Answer]) -> Answer:
        """Return what `show` makes of the newest settings. Raises StoreUnsettled."""

        def question(hosted: HostedStream[State]) -> Decided[Answer]:
            return Decided(show(hosted.state), own_facts=False)

        answered = await ask(self._stream, self._find, question)
        return answered.answer

    async def _find(self, _: int) -> HostedStream[State]:
        return await self._stream.fold()
