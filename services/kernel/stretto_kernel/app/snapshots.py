"""Snapshots of large runs: what their fold was at a version, so that it need not be folded again.

Made by the projector from the committed log, read by whoever folds a run. None is the record: one
that is missing, damaged, of other rules or of another history is passed over, and everything is as
it was, only slower. Packed and unpacked in slices, so that no loop stands still.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import fields, replace
from itertools import islice
from typing import Any, NamedTuple, Protocol

import structlog
from stretto.eventlog.v1.recorded_event_pb2 import RecordedEvent
from stretto_core.eventlog.chain import UnreadableEvent, head_of
from stretto_core.eventlog.codec import Codec, Decoded
from stretto_core.eventlog.port import EventLog
from stretto_core.eventlog.recorded import StoredEvent
from stretto_core.ids import RunId, StreamId

from stretto_kernel.domain.forms import Form, Packing, Unpacking, rules_word
from stretto_kernel.domain.run import RunState

EVENTS_MIN = 1_000
"""Shorter runs have none: they are folded as quickly."""
PART_TASKS = 200
"""Some milliseconds of packing or unpacking."""
PART_NAMES = 5_000
_NAMES = ("open_tasks", "leased_tasks", "backing_off")
_APART = {"tasks", "requests", "board", *_NAMES, "touched_tasks", "owner", "digest_key"}
"""Not in the first part: what is large has parts of its own, and a key is never kept."""


class Snapshot(NamedTuple):
    """A run folded up to a version. parts: MessagePack, the first of all but what grows with tasks.

    chain_hash: of the event of that version. rules: the word of the rules that folded it. digest:
    SHA-256 over all of it.
    """

    stream: StreamId
    version: int
    chain_hash: bytes
    rules: str
    digest: bytes
    parts: tuple[bytes, ...]


class SnapshotStore(Protocol):
    """Where snapshots are: the newest of each run. Methods raise Unavailable."""

    async def load(self, stream: StreamId) -> Snapshot | None:
        """Return the run's snapshot."""
        ...

    async def save(self, snapshot: Snapshot) -> None:
        """Keep it in the place of the one before."""
        ...


class FoundRun(NamedTuple):
    """A run out of a snapshot: its state, its first event's envelope, and its newest event."""

    state: RunState
    first: RecordedEvent
    newest: StoredEvent
    decoded: Decoded


class NoSnapshots:
    """Keeps none."""

    async def load(self, stream: StreamId) -> Snapshot | None:
        """See `SnapshotStore`."""
        return None

    async def save(self, snapshot: Snapshot) -> None:
        """See `SnapshotStore`."""


class Snapshots:
    """Makes and finds snapshots of one partition's runs; `used_count`: how often one served."""

    def __init__(
        self, store: SnapshotStore, log: EventLog, codec: Codec, *, events_min: int = EVENTS_MIN
    ) -> None:
        self._store = store
        self._log = log
        self._codec = codec
        self.events_min = events_min
        self.used_count = 0
        self._logger = structlog.get_logger("stretto.kernel.snapshots")

    def is_due(self, state: RunState, last_version: int) -> bool:
        """Whether to make one, the last being of that version (0: there is none).

        Each is of twice the events of the last, and costs the tasks there are: that many events
        come before it. So an event pays for one task in one snapshot, about, however long the run.
        """
        if state.key_id:
            return False  # Of a run with a data key nothing is kept that outlives the key.
        apart = max(self.events_min, last_version, state.task_count)
        return state.version - last_version >= apart

    async def make(self, state: RunState, newest_hash: bytes) -> None:
        """Keep the run as it is; it must not change meanwhile. Raises Unavailable."""
        import msgspec  # noqa: PLC0415 - only for large runs; the start of the kernel is a budget

        packing = Packing()
        parts = []
        for member, forms in _large_forms(state, packing):
            parts.append(msgspec.msgpack.encode([member, forms]))
            await asyncio.sleep(0)
        members = [field.name for field in fields(RunState) if field.name not in _APART]
        head = []
        for name in members:
            head.append([name, packing.pack(getattr(state, name))])
            await asyncio.sleep(0)
        if (board := state.board) is not None:
            head.append(["board", packing.pack(replace(board, entries={}))])
        parts.insert(0, msgspec.msgpack.encode([packing.shared, head]))
        made = Snapshot(
            StreamId(state.run_id), state.version, newest_hash, rules_word(), b"", tuple(parts)
        )
        await self._store.save(made._replace(digest=await _digest(made)))
        self._logger.info("snapshot.made", run_id=state.run_id, version=state.version)

    async def find(self, run_id: RunId, *, before: int | None = None) -> FoundRun | None:
        """Return a run from its snapshot, if there is one that can be used. Raises Unavailable.

        before: only of an earlier version than that.
        """
        found = await self._store.load(StreamId(run_id))
        if found is None or (before is not None and found.version >= before):
            return None
        if why := await self._unusable(found):
            self._logger.info("snapshot.ignored", run_id=run_id, version=found.version, why=why)
            return None
        page = await self._log.read_stream(found.stream, after_version=found.version - 1, limit=1)
        if not page.events:
            return None
        newest = page.events[0]
        try:
            if head_of(newest.stored_bytes).chain_hash != found.chain_hash:
                self._logger.info("snapshot.ignored", run_id=run_id, why="of another history")
                return None
            decoded = self._codec.decode(newest.stored_bytes)
            first = await self._log.read_stream(found.stream, limit=1)
            envelope = self._codec.decode(first.events[0].stored_bytes).envelope
        except UnreadableEvent as damage:
            # The fold of the log meets the event, and says where.
            self._logger.info("snapshot.ignored", run_id=run_id, why=damage.message)
            return None
        try:
            state = await _unpack(found)
        except Exception:
            # A bug of ours, in what can be done without: nobody is to stand still for it.
            self._logger.error("snapshot.failed", run_id=run_id, exc_info=True)
            return None
        self.used_count += 1
        return FoundRun(state, envelope, newest, decoded)

    async def _unusable(self, found: Snapshot) -> str:
        if found.rules != rules_word():
            return "of other rules"
        if found.digest != await _digest(found):
            return "damaged"
        return ""


async def _unpack(snapshot: Snapshot) -> RunState:
    import msgspec  # noqa: PLC0415 - see `make`

    shared, head = msgspec.msgpack.decode(snapshot.parts[0])
    owner = object()
    unpacking = Unpacking(shared, owner)
    state = RunState(**{name: unpacking.unpack(form) for name, form in head}, owner=owner)
    for part in snapshot.parts[1:]:
        await asyncio.sleep(0)
        member, forms = msgspec.msgpack.decode(part)
        if member == "tasks":
            records = map(unpacking.unpack, forms)
            state.tasks.update((record.name, record) for record in records)
        elif member == "board":
            assert state.board is not None, "the first part has what is left of it"
            entries = map(unpacking.unpack, forms)
            state.board.entries.update((entry.key, entry) for entry in entries)
        elif member == "requests":
            state.requests.update((name, tuple(entry)) for name, *entry in forms)
        else:
            getattr(state, member).update(dict.fromkeys(forms))
    return state


def _large_forms(state: RunState, packing: Packing) -> Iterator[tuple[str, list[Form]]]:
    """Yield what grows with a run in the forms of one part after another."""
    for records in _chunks(state.tasks.values(), PART_TASKS):
        yield "tasks", [packing.pack(record) for record in records]
    for entries in _chunks(state.requests.items(), PART_NAMES):
        yield "requests", [[name, *entry] for name, entry in entries]
    entries_of = {} if state.board is None else state.board.entries
    for some in _chunks(entries_of.values(), PART_TASKS):
        yield "board", [packing.pack(entry) for entry in some]
    for member in _NAMES:
        for names in _chunks(getattr(state, member), PART_NAMES):
            yield member, names


def _chunks(values: Iterable[Any], size: int) -> Iterator[list[Any]]:
    left = iter(values)
    while some := list(islice(left, size)):
        yield some


async def _digest(snapshot: Snapshot) -> bytes:
    digest = hashlib.sha256(
        f"{snapshot.stream}\0{snapshot.version}\0{snapshot.rules}\0".encode() + snapshot.chain_hash
    )
    for part in snapshot.parts:
        digest.update(len(part).to_bytes(8, "big") + part)
        await asyncio.sleep(0)
    return digest.digest()
