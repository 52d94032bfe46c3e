"""The part of the client that is for auditors: seals, export files, proofs of single events.

What it hands out is checked by `stretto-verify` alone; nothing here vouches for it.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

from stretto.eventlog.v1 import event_log_service_pb2 as pb
from stretto.eventlog.v1.recorded_event_pb2 import RecordedEvent

from stretto_sdk.client_calls import Calls
from stretto_sdk.client_logs import AnyRun
from stretto_sdk.errors import Unavailable
from stretto_sdk.runs import Run

PROOF_MAGIC = b"STRETTO-PROOF\x00\x00\x01"


@dataclass(frozen=True, slots=True, kw_only=True)
class Seal:
    """The newest seal of a partition. Keep `seal_hash` and `public_key` where the suite is not.

    position: everything up to it is sealed; 0 and a `seal_hash` of "" while nothing is. public_key,
    fingerprint: whose signature it bears, as hex. unsealed_event_count: committed since, seals
    counted. stop_reason, stop_message: why nothing is sealed any more; "" while all is well.
    warning_message: what was odd when the kernel began to seal; see `GetNewestSealResponse`.
    """

    partition: str
    position: int
    seal_hash: str
    public_key: str
    fingerprint: str
    unsealed_event_count: int
    stop_reason: str = ""
    stop_message: str = ""
    warning_message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportPart:
    """The next bytes of an export file.

    event_count, position: how far the file is with them. after_position, end_position: it holds
    every event after the one, up to the other. seal_hash: of the seal it ends with, as hex.
    cursor: where the next export goes on.
    """

    content: bytes
    event_count: int
    position: int
    after_position: int
    end_position: int
    seal_hash: str
    cursor: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """That an event lies in the log. content: a file for `stretto-verify`."""

    content: bytes
    stream: str
    version: int
    type: str
    position: int
    seal_position: int
    public_key: str


class AuditCalls:
    """What a client asks for auditors; `Client` has it all."""

    _calls: Calls

    async def newest_seal(self) -> Seal:
        """Return the newest seal, and how far the log has gone on since."""
        answer = await self._calls.unary(self._calls.log.GetNewestSeal, pb.GetNewestSealRequest())
        return Seal(
            partition=answer.partition,
            position=answer.seal.position,
            seal_hash=answer.seal_hash.hex(),
            public_key=answer.public_key.hex(),
            fingerprint=hashlib.sha256(answer.public_key).hexdigest(),
            unsealed_event_count=answer.unsealed_event_count,
            stop_reason=answer.stop_reason,
            stop_message=answer.stop_message,
            warning_message=answer.warning_message,
        )

    async def export(
        self, *, since: str = "", namespace: str | None = None
    ) -> AsyncGenerator[ExportPart, None]:
        """Yield a file of everything recorded, sealed up to this call, part by part.

        >>> async for part in client.export(since=cursor):
        ...     file.write(part.content)

        since: begin after the newest seal at or before this cursor, the one of an earlier export.
        namespace: whose events are given whole, of others only hashes; None = all. Raises
        InvalidArgument, OutOfRange (a cursor of another log), FailedPrecondition (nothing is
        recorded yet, or sealing has stopped), Unavailable (it broke off: begin again); at the end,
        without a cursor, NotFound (nothing was ever recorded of the namespace).
        """
        asked = "" if namespace is None else f"namespaces/{namespace}"
        request = pb.ExportRequest(cursor=since, namespace=asked)
        summary = pb.ExportSummary()
        begun = False
        async with aclosing(self._calls.stream(self._calls.log.Export, request)) as answers:
            async for answer in answers:
                if answer.HasField("summary"):
                    if begun:
                        raise Unavailable("the export broke off, and a part of a file is none")
                    summary = answer.summary
                    continue
                begun = True
                yield ExportPart(
                    content=answer.content,
                    event_count=answer.event_count,
                    position=answer.position,
                    after_position=summary.after_position,
                    end_position=summary.end_seal.position,
                    seal_hash=summary.end_seal_hash.hex(),
                    cursor=summary.cursor,
                )

    async def proof(
        self, run: AnyRun | None = None, version: int = 0, *, position: int = 0
    ) -> Proof:
        """Return the proof of an event, by its run (or another stream) and version, or position.

        >>> proof = await client.proof(run, 1)
        >>> Path("first.proof").write_bytes(proof.content)

        Raises NotFound, InvalidArgument, FailedPrecondition (it is the newest seal, or the record
        was changed).
        """
        stream = run.run_id if isinstance(run, Run) else (run or "").rpartition("/")[2]
        request = pb.GetProofRequest(stream=stream, version=version, position=position)
        proof = (await self._calls.unary(self._calls.log.GetProof, request)).proof
        recorded = RecordedEvent.FromString(proof.stored_bytes)
        return Proof(
            content=PROOF_MAGIC + proof.SerializeToString(),
            stream=recorded.stream,
            version=recorded.version,
            type=recorded.type,
            position=proof.position,
            seal_position=proof.seal.position,
            public_key=proof.seal.public_key.hex(),
        )
