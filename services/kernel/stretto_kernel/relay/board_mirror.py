"""The live mirror of blackboards: one bucket a namespace, fed from the committed log.

It is eventual and never the record: at least once, an older revision never over a newer one. A
bucket that is missing (its server lost it, or there never was one) is made and filled from the view
`blackboard`, and with what the log has after it. So is one that says it was filled before the view
was rebuilt, emptied first: whoever dies between the two, the next one goes on. A deletion is an
entry without a value, so that nothing that comes again brings it back. Values are
`stretto.blackboard.v1.Entry`, serialised, with the value as it is stored.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple, Protocol

import structlog
from stretto.blackboard.v1 import blackboard_pb2
from stretto.eventlog.v1.recorded_event_pb2 import RecordedEvent
from stretto.run.v1 import events_pb2 as ev
from stretto_core.bus.buckets import BucketMissing, Buckets, BucketValue
from stretto_core.errors import Unavailable
from stretto_core.eventlog.port import EventLog
from stretto_core.eventlog.recorded import StoredEvent
from stretto_core.ids import Namespace, Partition, RunId

from stretto_kernel.app.board_calls import to_entry
from stretto_kernel.domain.run.blackboard_state import BoardEntry, changes_of
from stretto_kernel.relay.place import RELAY

AGAIN_S = 0.2
AGAIN_S_MAX = 5.0
LOOK_S = 5.0
"""So soon a bucket that was lost is made again, though nobody writes."""
PAGE_ENTRIES = 500
VIEW = "blackboard"
FILLED = "=filled"
"""The last word of a key that says at its revision 2 that a partition's part of a bucket is whole;
at 1 it is being filled. Its value is the rebuild of the view that it was filled from, if any."""
BODIES: dict[str, type[ev.BoardEntriesWritten] | type[ev.BoardEntriesDeleted]] = {
    kind.DESCRIPTOR.full_name: kind for kind in (ev.BoardEntriesWritten, ev.BoardEntriesDeleted)
}
_ESCAPED = re.compile(r"[^A-Za-z0-9_/-]")

Values = dict[Namespace, dict[str, BucketValue]]
"""By namespace and key, the newest of each."""


class BoardNamespaces(NamedTuple):
    """The namespaces that have entries, or had. position: of the view, at least.

    fold_id: the rebuild that made the view; empty = it was never rebuilt, or that is long ago.
    """

    position: int
    names: Sequence[Namespace] = ()
    fold_id: str = ""


class RunEntry(NamedTuple):
    """An entry of a run."""

    run_id: RunId
    entry: BoardEntry


class NewestEntries(NamedTuple):
    """Some entries, and whether there are more. position: of the view, at least."""

    position: int
    entries: Sequence[RunEntry] = ()
    more: bool = False


class BoardSource(Protocol):
    """The view `blackboard`. Every method raises Unavailable."""

    async def namespaces(self) -> BoardNamespaces:
        """Return the namespaces that have entries, or had, and which rebuild the view is of."""
        ...

    async def newest(
        self, namespace: Namespace, after: RunEntry | None, count_max: int
    ) -> NewestEntries:
        """Return the newest version of entries, deletions too, in order of runs and keys."""
        ...


def bucket_of(namespace: Namespace) -> str:
    """Return the bucket that mirrors a namespace's blackboards."""
    return f"stretto_board_{namespace}"


def key_of(partition: Partition, run_id: RunId, key: str) -> str:
    """Return <partition>.<run>.<key>: the key of an entry, in which `=3A` stands for a colon."""
    escaped = _ESCAPED.sub(lambda found: f"={ord(found[0]):02X}", key)
    return f"{partition}.{run_id}.{escaped}"


class BoardMirror:
    """Mirrors the blackboards of one partition."""

    def __init__(self, log: EventLog, source: BoardSource, buckets: Buckets) -> None:
        self._log = log
        self._source = source
        self._buckets = buckets
        # Two revisions of a key: a bucket that was lost and made again between them refuses the
        # second, which would call it whole.
        self._filling = BucketValue(f"{log.partition}.{FILLED}", 1, b"")
        self._fold_id = b""
        self._namespaces: set[Namespace] = set()
        self._position = 0
        self._taking = asyncio.Lock()
        self._asked = asyncio.Event()
        self._logger = structlog.get_logger("stretto.kernel.mirror")

    def views_rebuilt(self, names: Collection[str]) -> None:
        """A fresh fold has replaced these views: look soon whether the buckets are of theirs."""
        if VIEW in names:
            self._asked.set()

    async def take(self, batch: Sequence[StoredEvent]) -> None:
        """Mirror what the next events of the log changed; waits for a bus that is down."""
        values = self._values(batch)
        async with self._taking:
            for namespace, of_namespace in values.items():
                await self._put(namespace, list(of_namespace.values()))
            if batch:
                self._position = max(self._position, batch[-1].position)

    async def keep(self) -> None:
        """Make buckets again that are lost, or of a view rebuilt since, until cancelled."""
        knows_all = False
        while True:
            asked = self._asked.is_set()
            self._asked.clear()
            try:
                if not self._position:  # What the relay had taken before is taken.
                    self._position = await self._log.tracking_position(RELAY)
                if asked or not knows_all:
                    began, found = self._position, await self._source.namespaces()
                    self._fold_id = found.fold_id.encode()
                    self._namespaces.update(found.names)
                    knows_all = found.position >= began  # What came since was taken here.
                for namespace in sorted(self._namespaces):
                    if not await self._is_filled(namespace):
                        await self._clear(namespace)
                        async with self._taking:  # What is put meanwhile went to another bucket.
                            await self._make(namespace)
                        await self._fill(namespace)
            except (Unavailable, BucketMissing) as cause:
                if asked:
                    self._asked.set()
                self._logger.info("mirror.postponed", message=cause.message)
                await asyncio.sleep(AGAIN_S)
                continue
            try:
                async with asyncio.timeout(LOOK_S):
                    await self._asked.wait()
            except TimeoutError:
                continue

    async def _put(self, namespace: Namespace, values: Sequence[BucketValue]) -> None:
        """Put values, again and again until the bus has taken all of them."""
        again_s = AGAIN_S
        while True:
            try:
                return await self._buckets.put_newer(bucket_of(namespace), values)
            except BucketMissing:
                try:
                    await self._make(namespace)
                    await self._fill(namespace)
                    continue
                except (Unavailable, BucketMissing) as cause:
                    message = cause.message
            except Unavailable as cause:
                message = cause.message
            self._logger.info("mirror.waits", namespace=namespace, message=message)
            await asyncio.sleep(again_s)
            again_s = min(2 * again_s, AGAIN_S_MAX)

    async def _clear(self, namespace: Namespace) -> None:
        """Empty a bucket, never between what is put and the position that says so."""
        async with self._taking:
            if await self._buckets.exists(bucket_of(namespace)):
                await self._buckets.clear(bucket_of(namespace), self._log.partition)

    async def _make(self, namespace: Namespace) -> None:
        """Make the bucket, and say in it that it is being filled."""
        await self._buckets.make(bucket_of(namespace))
        self._namespaces.add(namespace)
        await self._buckets.put_newer(bucket_of(namespace), [self._filling])

    async def _fill(self, namespace: Namespace) -> None:
        """Put what the view has, then what the log has after it, and say that it is whole."""
        bucket = bucket_of(namespace)
        filled = self._filling._replace(revision=2, value=self._fold_id)
        after: RunEntry | None = None
        position, more, count = -1, True, 0
        while more:
            page = await self._source.newest(namespace, after, PAGE_ENTRIES)
            position = page.position if position < 0 else position
            values = [self._value(namespace, *each) for each in page.entries]
            await self._buckets.put_newer(bucket, values)
            count += len(values)
            more = page.more
            after = page.entries[-1] if page.entries else after
        while position < self._position:
            log_page = await self._log.read_all(after_position=position)
            if not log_page.events:
                break
            fresh = self._values(log_page.events).get(namespace, {})
            await self._buckets.put_newer(bucket, list(fresh.values()))
            position = log_page.events[-1].position
        await self._buckets.put_newer(bucket, [filled])
        self._logger.info("mirror.filled", namespace=namespace, entry_count=count)

    async def _is_filled(self, namespace: Namespace) -> bool:
        """Whether the bucket was filled to the end, and from the view as it is now.

        A crash leaves one that was not, and so does a death between a rebuild and this.
        """
        try:
            held = await self._buckets.get(bucket_of(namespace), self._filling.key)
        except BucketMissing:
            return False
        if held is None or held.revision <= self._filling.revision:
            return False
        return not self._fold_id or held.value == self._fold_id

    def _values(self, events: Iterable[StoredEvent]) -> Values:
        """Return the newest that events say of each key. Costs nothing but a look for others."""
        found: Values = {}
        for stored in events:
            body = BODIES.get(stored.type)
            if body is None:
                continue
            envelope = RecordedEvent.FromString(stored.stored_bytes)
            namespace, run_id = Namespace(envelope.namespace), RunId(envelope.stream)
            event = body.FromString(envelope.body)
            for entry in changes_of(event, stored.version, envelope.time.ToNanoseconds()):
                value = self._value(namespace, run_id, entry)
                found.setdefault(namespace, {})[value.key] = value
        return found

    def _value(self, namespace: Namespace, run_id: RunId, entry: BoardEntry) -> BucketValue:
        shown: blackboard_pb2.Entry = to_entry(f"namespaces/{namespace}/runs/{run_id}", entry)
        return BucketValue(
            key_of(self._log.partition, run_id, entry.key),
            entry.revision,
            shown.SerializeToString(deterministic=True),
        )
