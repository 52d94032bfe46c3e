"""The methods of EventLogService that seal: Export, GetProof, GetNewestSeal."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, contextmanager
from typing import Any

from stretto.eventlog.v1 import event_log_service_pb2 as pb
from stretto_core.errors import Exhausted
from stretto_core.eventlog.seals import seal_hash
from stretto_core.ids import Namespace, StreamId

from stretto_kernel.app.audit_calls import Export, event_at, prove
from stretto_kernel.kernel import Kernel
from stretto_kernel.servicers.fields import Fields
from stretto_kernel.servicers.page_tokens import decode_cursor, encode_cursor, not_ours

EXPORTS_MAX = 4
STREAM_CHARACTERS_MAX = 200


class TooManyExports(Exhausted):
    """The kernel writes its most export files, or makes its most proofs."""

    reason = "OVERLOADED"


class AuditMethods:
    """Serves a partition's auditors; needs its ownership, since it seals."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._audits_open = 0

    async def Export(
        self, request: pb.ExportRequest, context: Any
    ) -> AsyncIterator[pb.ExportResponse]:
        """See the contract."""
        fields = Fields()
        namespace = fields.namespace("namespace", request.namespace)
        fields.refuse("the request")
        ports = self._kernel.ports
        partition = ports.log.partition
        positions = decode_cursor("cursor", request.cursor)
        if positions.keys() - {partition}:
            raise not_ours("cursor")
        with self._one_more():
            export = await Export.begin(
                ports.log,
                self._kernel.partition.sealer,
                since_position=positions.get(partition, 0),
                namespace=namespace if request.namespace else Namespace(""),
            )
            yield pb.ExportResponse(
                summary=pb.ExportSummary(
                    after_position=export.after_position,
                    end_seal=export.end_seal,
                    end_seal_hash=seal_hash(export.end_seal),
                    cursor=encode_cursor({partition: export.end_seal.position}),
                )
            )
            async with aclosing(export.parts(ports.clock.now_ns())) as parts:
                async for content, event_count, position in parts:
                    yield pb.ExportResponse(
                        content=content, event_count=event_count, position=position
                    )

    async def GetProof(self, request: pb.GetProofRequest, context: Any) -> pb.GetProofResponse:
        """See the contract."""
        fields = Fields()
        stream = fields.text("stream", request.stream, characters_max=STREAM_CHARACTERS_MAX)
        if stream and request.version < 1:
            fields.wrong("version", "must be 1 or more")
        if stream and request.position:
            fields.wrong("position", "must be 0 beside a stream")
        if not stream and request.version:
            fields.wrong("stream", "must name the stream of the version")
        if not stream and request.position < 1:
            fields.wrong("position", "must be 1 or more, or a stream and a version be given")
        fields.refuse("the request")
        log = self._kernel.ports.log
        with self._one_more():
            event = await event_at(
                log,
                stream=StreamId(stream),
                version=request.version,
                position=request.position,
            )
            proof = await prove(log, self._kernel.partition.sealer, event)
        return pb.GetProofResponse(proof=proof)

    async def GetNewestSeal(
        self, request: pb.GetNewestSealRequest, context: Any
    ) -> pb.GetNewestSealResponse:
        """See the contract."""
        sealer = self._kernel.partition.sealer
        await sealer.ready()
        answer = pb.GetNewestSealResponse(
            partition=self._kernel.ports.log.partition,
            public_key=(await sealer.key()).public_bytes,
            unsealed_event_count=sealer.unsealed_count,
            warning_message=sealer.warning,
        )
        if sealer.newest is not None:
            answer.seal.CopyFrom(sealer.newest)
            answer.seal_hash = seal_hash(sealer.newest)
        if sealer.stop is not None:
            answer.stop_reason = sealer.stop.reason_word
            answer.stop_message = str(sealer.stop)
        return answer

    @contextmanager
    def _one_more(self) -> Iterator[None]:
        if self._audits_open >= EXPORTS_MAX:
            raise TooManyExports("too many exports and proofs", exports_max=str(EXPORTS_MAX))
        self._audits_open += 1
        try:
            yield
        finally:
            self._audits_open -= 1
