"""What can be asked of the settings of namespaces: load, decide, append, answer.

One stream a partition holds them all, read when the partition is owned: what a start has to heed is
known before the first one comes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from stretto_core.eventlog.codec import Cause, Codec
from stretto_core.eventlog.port import StoreDown
from stretto_core.ids import Namespace, StreamId

from stretto_kernel.app.asking import Answered, Decided, ask
from stretto_kernel.app.fact_writer import Decider, FactWriter
from stretto_kernel.app.hosted_stream import HostedStream
from stretto_kernel.app.queue_calls import SYSTEM, Ports
from stretto_kernel.app.resident_stream import ResidentStream
from stretto_kernel.app.run_calls import Caller
from stretto_kernel.domain.namespace import (
    EVENTS,
    NamespaceSettings,
    NamespacesState,
    UpdateNamespace,
    decide,
    evolve,
)

Answer = TypeVar("Answer")


class NamespaceCalls:
    """The settings of the namespaces of one ownership of a partition; `fold` first."""

    def __init__(self, ports: Ports, facts: FactWriter) -> None:
        self._ids = ports.ids
        self._stream: ResidentStream[NamespacesState] = ResidentStream(
            ports.log,
            facts,
            Decider(Codec(EVENTS), decide, evolve),
            stream=StreamId(f"{ports.log.partition}-namespaces"),
            namespace=SYSTEM,
            new_state=NamespacesState,
        )

    async def fold(self) -> None:
        """Read the settings. Raises StoreDown."""
        await self._stream.fold()

    def close(self) -> None:
        """Read them no more."""
        self._stream.close()

    @property
    def are_set(self) -> bool:
        """Whether a setting was ever changed; after `fold`."""
        hosted = self._stream.in_memory
        return hosted is not None and bool(hosted.state.settings)

    def encrypts(self, namespace: Namespace) -> bool:
        """Whether a run that is started now has a data key. Raises StoreDown: unknown just now."""
        hosted = self._stream.in_memory
        if hosted is None:
            raise StoreDown("the settings of namespaces are being read again")
        return hosted.state.of(namespace).encrypts

    async def update(self, command: UpdateNamespace, caller: Caller) -> Answered[NamespaceSettings]:
        """Change settings of a namespace. Raises what `decide` refuses, StoreUnsettled."""

        def question(hosted: HostedStream[NamespacesState]) -> Decided[NamespaceSettings]:
            cause = Cause(
                namespace=SYSTEM,
                principal=caller.principal,
                request_id=caller.request_id,
                request_digest=caller.request_digest,
                correlation_id=self._ids.uuid7(),
                traceparent=caller.traceparent,
            )
            own_facts = self._stream.take(hosted, command, cause)
            return Decided(hosted.state.of(command.namespace), own_facts)

        return await ask(self._stream, self._find, question)

    async def read(self, show: Callable[[NamespacesState], Answer]) -> Answer:
        """Return what `show` makes of the newest settings. Raises StoreUnsettled."""

        def question(hosted: HostedStream[NamespacesState]) -> Decided[Answer]:
            return Decided(show(hosted.state), own_facts=False)

        answered = await ask(self._stream, self._find, question)
        return answered.answer

    async def _find(self, _: int) -> HostedStream[NamespacesState]:
        return await self._stream.fold()
