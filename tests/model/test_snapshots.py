"""A run out of a snapshot, and the events after it, is the run that the whole fold makes."""

from __future__ import annotations

from random import Random

import pytest
from stretto.blackboard.v1.blackboard_pb2 import Writer
from stretto.common.v1.payload_pb2 import Payload
from stretto.eventlog.v1.recorded_event_pb2 import RecordedEvent
from stretto_core.eventlog.chain import chain_hash
from stretto_core.eventlog.memory import MemoryLog
from stretto_core.eventlog.recorded import StreamHead
from stretto_core.ids import StreamId
from stretto_kernel.app.snapshots import PART_TASKS, Snapshot, Snapshots
from stretto_kernel.domain.run import RunState, evolve, new_run
from stretto_kernel.domain.run.blackboard_state import Board, BoardEntry
from stretto_kernel.domain.run.fingerprint import fingerprint
from stretto_kernel.owned_partition import RUN_CODEC

from tests.model.runs import NAMESPACE, RUN_ID
from tests.model.test_past_model import history, stored

HISTORIES = 30


class Kept:
    """Keeps one snapshot."""

    def __init__(self) -> None:
        self.snapshot: Snapshot | None = None

    async def load(self, stream: StreamId) -> Snapshot | None:
        found = self.snapshot
        return found if found is not None and found.stream == stream else None

    async def save(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot


async def hash_at(log: MemoryLog, version: int) -> bytes:
    """The chain hash after a version, as the events themselves say it."""
    head = StreamHead(0, b"\0" * 32, 0)
    for event in (await log.read_stream(StreamId(RUN_ID), limit=version)).events:
        head = StreamHead(event.version, chain_hash(head.chain_hash, event.stored_bytes), 0)
    return head.chain_hash


@pytest.mark.parametrize("block", range(2))
async def test_a_snapshot_and_what_came_after_it_is_the_fold(block: int) -> None:
    for seed in range(block * HISTORIES // 2, (block + 1) * HISTORIES // 2):
        facts = history(seed)
        log = MemoryLog(await stored(facts))
        kept = Kept()
        snapshots = Snapshots(kept, log, RUN_CODEC, events_min=1)
        state = new_run(RUN_ID, NAMESPACE)
        at = Random(seed).randint(1, len(facts))
        for fact in facts[:at]:
            evolve(state, fact)
        state.take_touched()
        await snapshots.make(state, await hash_at(log, at))
        found = await snapshots.find(RUN_ID)
        assert found is not None and found.state.version == found.newest.version == at
        assert fingerprint(found.state) == fingerprint(state), seed
        assert _members(found.state) == _members(state), seed
        for fact in facts[at:]:
            evolve(state, fact)
            evolve(found.state, fact)
            assert found.state.take_touched() == state.take_touched(), (seed, fact.version)
        assert fingerprint(found.state) == fingerprint(state), seed


def _members(state: RunState) -> tuple[object, ...]:
    """What a fingerprint leaves out, and the order of names."""
    owned = all(record.owner is state.owner for record in state.tasks.values())
    names = (state.open_tasks, state.leased_tasks, state.backing_off, state.requests)
    return (owned, [list(each) for each in (state.tasks, *names)], state.wide_version)


async def test_one_that_cannot_be_used_is_passed_over() -> None:
    facts = history(3)
    log = MemoryLog(await stored(facts))
    kept = Kept()
    snapshots = Snapshots(kept, log, RUN_CODEC, events_min=1)
    state = new_run(RUN_ID, NAMESPACE)
    at = len(facts) // 2
    for fact in facts[:at]:
        evolve(state, fact)
    await snapshots.make(state, await hash_at(log, at))
    whole = kept.snapshot
    assert whole is not None and await snapshots.find(RUN_ID) is not None
    assert await snapshots.find(RUN_ID, before=at) is None, "it is not of an earlier version"
    assert await snapshots.find(RUN_ID, before=at + 1) is not None
    flipped = bytes([whole.parts[1][0] ^ 1]) + whole.parts[1][1:]
    for damaged in (
        whole._replace(parts=(whole.parts[0], flipped, *whole.parts[2:])),
        whole._replace(parts=whole.parts[:-1]),
        whole._replace(version=at - 1),
        whole._replace(chain_hash=b"\1" * 32),
        whole._replace(rules="of another version"),
    ):
        kept.snapshot = damaged
        assert await snapshots.find(RUN_ID) is None, damaged
    await snapshots.make(state, b"\1" * 32)
    assert await snapshots.find(RUN_ID) is None, "of another history, whole in itself"


@pytest.mark.parametrize("previous_hash", [b"", b"short", b"l" * 33])
async def test_an_event_that_bears_no_hash_is_left_to_the_fold_of_the_log(
    previous_hash: bytes,
) -> None:
    facts = history(3)
    store = await stored(facts)
    snapshots = Snapshots(Kept(), MemoryLog(store), RUN_CODEC, events_min=1)
    state = new_run(RUN_ID, NAMESPACE)
    for fact in facts:
        evolve(state, fact)
    await snapshots.make(state, await hash_at(MemoryLog(store), len(facts)))
    events = store.stream_events(StreamId(RUN_ID))
    envelope = RecordedEvent.FromString(events[-1].stored_bytes)
    envelope.previous_hash = previous_hash
    events[-1] = events[-1]._replace(stored_bytes=envelope.SerializeToString())
    assert await snapshots.find(RUN_ID) is None


async def test_a_large_blackboard_is_kept_in_parts() -> None:
    facts = history(3)
    store = await stored(facts)
    kept = Kept()
    snapshots = Snapshots(kept, MemoryLog(store), RUN_CODEC, events_min=1)
    state = new_run(RUN_ID, NAMESPACE)
    for fact in facts:
        evolve(state, fact)
    state.board = Board(state.owner)
    for number in range(3 * PART_TASKS):
        value, writer = Payload(json=str(number)), Writer(name="w")
        state.board.apply((BoardEntry(f"custom/{number}", 1, value, writer, 5),))
    await snapshots.make(state, await hash_at(MemoryLog(store), len(facts)))
    assert kept.snapshot is not None
    largest = max(map(len, kept.snapshot.parts))
    assert largest < sum(map(len, kept.snapshot.parts)) // 2
    found = await snapshots.find(RUN_ID)
    assert found is not None and found.state.board is not None
    assert list(found.state.board.entries.items()) == list(state.board.entries.items())
    assert found.state.board.size_bytes == state.board.size_bytes
    assert found.state.board.owner is found.state.owner


def test_the_distance_between_two_doubles_and_is_no_less_than_the_tasks() -> None:
    snapshots = Snapshots(Kept(), None, RUN_CODEC, events_min=10)  # type: ignore[arg-type]

    def made(task_count: int) -> list[int]:
        state, at = new_run(RUN_ID, NAMESPACE), [0]
        state.task_count = task_count
        for version in range(1, 200):
            state.version = version
            if snapshots.is_due(state, at[-1]):
                at.append(version)
        return at[1:]

    assert made(1) == [10, 20, 40, 80, 160]
    assert made(50) == [50, 100]
    keyed = new_run(RUN_ID, NAMESPACE)
    keyed.version, keyed.key_id = 1_000, 1
    assert not snapshots.is_due(keyed, 0), "nothing is kept that outlives the key"
