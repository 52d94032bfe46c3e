"""What an auditor can ask for: a file that proves itself, a proof of one event, the newest seal.

Reads the log; writes to it only by asking for a seal. What is read is handed on as it is stored,
also when it is not what was recorded: to find that is the verifier's part, and anybody may be it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import NamedTuple

from stretto.eventlog.v1.proof_pb2 import EventProof
from stretto.eventlog.v1.seal_pb2 import LogSealed
from stretto_core.errors import NotFound
from stretto_core.eventlog.export import ExportWriter, claimed_hash
from stretto_core.eventlog.merkle import Prover, leaf_hash
from stretto_core.eventlog.port import EventLog
from stretto_core.eventlog.recorded import StoredEvent
from stretto_core.eventlog.seals import AUDIT_NAMESPACE
from stretto_core.ids import Namespace, StreamId

from stretto_kernel.app.moments import require_within
from stretto_kernel.app.seal_search import SealBroken, newest_seal_at, seal_over, seals_beyond
from stretto_kernel.app.sealer import NotSealedYet, Sealer

READ_EVENTS = 500
READ_BYTES_MAX = 1 << 20
PART_BYTES_MAX = 1 << 20


class NoSuchNamespace(NotFound):
    """No event of the whole log is of the namespace."""


class Part(NamedTuple):
    """The next bytes of an export file, and how far it is with them."""

    content: bytes
    event_count: int
    position: int


class Export:
    """One export file: made by `begin`, written by reading `parts` to the end."""

    def __init__(
        self,
        log: EventLog,
        writer: ExportWriter,
        *,
        after_position: int,
        end_seal: LogSealed,
        namespace: Namespace,
    ) -> None:
        self._log = log
        self._writer = writer
        self._namespace = namespace
        self.after_position = after_position
        self.end_seal = end_seal

    @classmethod
    async def begin(
        cls, log: EventLog, sealer: Sealer, *, since_position: int, namespace: Namespace
    ) -> Export:
        """Seal what is committed and not sealed, and return the file that ends there.

        since_position: it begins after the newest seal at or before. namespace: whose events are
        given whole; "" = all. Raises BeyondTheLog, and what `Sealer.seal_now` does.
        """
        await require_within(log, since_position)
        end_seal = await sealer.seal_now()
        start = await newest_seal_at(log, min(since_position, end_seal.position))
        writer = ExportWriter(
            await sealer.key(),
            start=start,
            end_seal=end_seal,
            seals_beyond=await seals_beyond(log, start, end_seal),
            namespace=namespace,
        )
        after_position = 0 if start is None else start.position
        return cls(
            log,
            writer,
            after_position=after_position,
            end_seal=end_seal,
            namespace=namespace,
        )

    async def parts(self, now_ns: int) -> AsyncGenerator[Part, None]:
        """Yield the file. now_ns: when it is made.

        Raises StoreDown, and NoSuchNamespace at the end of a file from the first event on.
        """
        position, count = self.after_position, 0
        for content in _cut(self._writer.begin(now_ns)):
            yield Part(content, count, position)
        while position < self.end_seal.position:
            page = await self._log.read_all(
                after_position=position, limit=READ_EVENTS, bytes_max=READ_BYTES_MAX
            )
            events = [each for each in page.events if each.position <= self.end_seal.position]
            if not events:
                break  # Somebody took the last ones away: the verifier finds it.
            position, count = events[-1].position, count + len(events)
            for content in _cut(self._writer.add(events)):
                yield Part(content, count, position)
        if self._names_nothing():
            raise NoSuchNamespace(
                f"no event is of the namespace {self._namespace!r}, and a file of hashes alone "
                "shows nothing: check its name",
                namespace=self._namespace,
            )
        yield Part(self._writer.end(), count, position)

    def _names_nothing(self) -> bool:
        """Whether it is a namespace without an event; of a part of the log it may well have none,
        and the seals' own is there before the first of them lies under another.
        """
        is_known = self._namespace in ("", AUDIT_NAMESPACE)
        return not (is_known or self.after_position or self._writer.given_count)


def _cut(content: bytes) -> list[bytes]:
    starts = range(0, len(content), PART_BYTES_MAX)
    return [content[start : start + PART_BYTES_MAX] for start in starts]


async def prove(log: EventLog, sealer: Sealer, event: StoredEvent) -> EventProof:
    """Return the proof of an event of the log, which is sealed first if need be.

    Raises NotSealedYet (it is a seal, and nothing else is there to seal), SealBroken, and what
    `Sealer.seal_now` does.
    """
    newest = sealer.newest
    if newest is None or newest.position < event.position:
        newest = await sealer.seal_now()
    if newest.position < event.position:
        raise NotSealedYet(
            "the event is the newest seal, which the next seal will cover",
            position=str(event.position),
        )
    seal = await seal_over(log, event.position)
    if seal is None or not seal.after_position < event.position <= seal.position:
        raise SealBroken(
            f"the seals do not cover position {event.position} any more, as they did: the record "
            "was changed; `stretto verify` names the event",
            position=str(event.position),
        )
    tree = await _tree_under(log, seal, event.position)
    if tree.leaf_index is None or (proven := tree.root_and_path())[0] != seal.root:
        raise SealBroken(
            f"the events after position {seal.after_position} up to {seal.position} are not those "
            "that were sealed: the record was changed; `stretto export` and `stretto-verify` name "
            "the event",
            after_position=str(seal.after_position),
            position=str(seal.position),
        )
    return EventProof(
        position=event.position,
        stored_bytes=event.stored_bytes,
        leaf_index=tree.leaf_index,
        path=proven[1],
        seal=seal,
    )


async def _tree_under(log: EventLog, seal: LogSealed, proven_position: int) -> Prover:
    """Return the tree over what lies where the seal says, with the way from one position."""
    tree = Prover()
    position, more = seal.after_position, True
    while more and position < seal.position:
        page = await log.read_all(
            after_position=position, limit=READ_EVENTS, bytes_max=READ_BYTES_MAX
        )
        for each in page.events:
            position = each.position
            if position <= seal.position:
                leaf = leaf_hash(position, claimed_hash(each.stored_bytes))
                tree.add(leaf, proven=position == proven_position)
        more = page.more
    return tree


async def event_at(log: EventLog, *, stream: StreamId, version: int, position: int) -> StoredEvent:
    """Return the event with that version of the stream, or without a stream at that position.

    Raises NotFound.
    """
    if stream:
        page = await log.read_stream(stream, after_version=version - 1, limit=1)
        found = [event for event in page.events if event.version == version]
        place = {"stream": str(stream), "version": str(version)}
    else:
        page = await log.read_all(after_position=position - 1, limit=1)
        found = [event for event in page.events if event.position == position]
        place = {"position": str(position)}
    if not found:
        raise NotFound("no such event", **place)
    return found[0]
