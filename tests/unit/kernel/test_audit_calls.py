"""What an auditor is given: files and proofs that the verifier takes, at any place of the log."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest
from stretto_core.errors import NotFound, OutOfRange
from stretto_core.eventlog.memory import MemoryStore
from stretto_core.eventlog.seals import AUDIT_NAMESPACE, SEALED_TYPE, seal_hash, seals_stream
from stretto_core.ids import Namespace, Partition, StreamId
from stretto_kernel.app.audit_calls import Export, NoSuchNamespace, event_at, prove
from stretto_kernel.app.seal_search import SealBroken, newest_seal_at, seal_over
from stretto_kernel.app.sealer import NotSealedYet
from stretto_kernel.kernel import Kernel
from stretto_verify.verify import NotWhole, Report, verify, verify_proof

from tests.unit.audit.attacks import frames_of
from tests.unit.kernel.harness import NAMESPACE, new_store, start, start_kernel
from tests.unit.kernel.test_sealer import BY_COUNT, NEVER, seals_of, start_runs

ACME = Namespace("acme")
ALL = Namespace("")
P0 = Partition("p0")


@pytest.fixture
def store() -> MemoryStore:
    return new_store()


@pytest.fixture
async def kernel(store: MemoryStore) -> AsyncIterator[Kernel]:
    """A kernel with a log of some thirty events under several seals."""
    kernel = await start_kernel(store, seals=BY_COUNT)
    await start_runs(kernel, 27)
    await kernel.partition.sealer.seal_now()
    yield kernel
    await kernel.stop()


async def exported(kernel: Kernel, *, since: int = 0, namespace: Namespace = ALL) -> bytes:
    log, sealer = kernel.ports.log, kernel.partition.sealer
    export = await Export.begin(log, sealer, since_position=since, namespace=namespace)
    return b"".join([part.content async for part in export.parts(kernel.ports.clock.now_ns())])


def checked(store: MemoryStore, data: bytes, *, seal: bytes | None = None) -> Report:
    return verify(io.BytesIO(data), key=store.seal_key.public_bytes, seal=seal)


async def proof_of(kernel: Kernel, position: int) -> bytes:
    log, sealer = kernel.ports.log, kernel.partition.sealer
    event = await event_at(log, stream=StreamId(""), version=0, position=position)
    return (await prove(log, sealer, event)).SerializeToString()


async def test_a_file_holds_everything_up_to_its_seal(store: MemoryStore, kernel: Kernel) -> None:
    await start_runs(kernel, 2)  # Not sealed yet: the export does that first.
    report = checked(store, await exported(kernel))
    newest = seals_of(store)[-1]
    assert report.seal_hash == seal_hash(newest).hex()
    assert report.position == newest.position == store.events[-2].position
    assert report.event_count == len(store.events) - 1
    event_count = len(store.events)
    assert checked(store, await exported(kernel)).seal_hash == report.seal_hash
    assert len(store.events) == event_count, "without news there is nothing to seal"


async def test_files_follow_one_another_by_cursor_and_seal(
    store: MemoryStore, kernel: Kernel
) -> None:
    first = checked(store, await exported(kernel))
    nothing = await exported(kernel, since=first.position)
    assert checked(store, nothing, seal=bytes.fromhex(first.seal_hash)).event_count == 0
    await start_runs(kernel, 8)
    data = await exported(kernel, since=first.position)
    second = checked(store, data, seal=bytes.fromhex(first.seal_hash))
    assert (second.after_position, second.event_count) == (
        first.position,
        len([each for each in store.events if first.position < each.position <= second.position]),
    )
    with pytest.raises(NotWhole, match="not in the file"):
        checked(store, data, seal=seal_hash(seals_of(store)[0]))


async def test_a_cursor_is_rounded_down_to_a_seal(store: MemoryStore, kernel: Kernel) -> None:
    seals = seals_of(store)
    for event in store.events:
        before = [seal for seal in seals if seal.position <= event.position]
        report = checked(store, await exported(kernel, since=event.position))
        assert report.after_position == (before[-1].position if before else 0)


async def test_a_log_that_was_never_sealed_gets_many_seals_at_once_and_files_of_it_are_whole() -> (
    None
):
    store = new_store()
    first = await start_kernel(store, seals=NEVER)
    await start_runs(first, 33)
    await first.stop()
    kernel = await start_kernel(store, seals=BY_COUNT)
    data = await exported(kernel)
    report = checked(store, data)
    assert report.event_count == sum(each.position <= report.position for each in store.events)
    assert report.seal_count == len(seals_of(store)) == 7
    assert frames_of(data)[0].header.seals_beyond
    await start_runs(kernel, 3)
    for seal in seals_of(store):
        data = await exported(kernel, since=seal.position)
        assert checked(store, data, seal=seal_hash(seal)).after_position == seal.position
    assert not frames_of(await exported(kernel))[0].header.seals_beyond
    await kernel.stop()


async def test_a_cursor_of_another_log_is_refused(store: MemoryStore, kernel: Kernel) -> None:
    with pytest.raises(OutOfRange):
        await exported(kernel, since=store.events[-1].position + 1)


async def test_of_other_namespaces_there_are_only_hashes(
    store: MemoryStore, kernel: Kernel
) -> None:
    await start(kernel, namespace=ACME)
    report = checked(store, await exported(kernel, namespace=ACME))
    assert report.omitted_count == 27
    assert checked(store, await exported(kernel, namespace=NAMESPACE)).omitted_count == 1


async def test_a_namespace_that_no_event_names_is_refused(
    store: MemoryStore, kernel: Kernel
) -> None:
    """But of a part of the log it may well have none."""
    with pytest.raises(NoSuchNamespace):
        await exported(kernel, namespace=ACME)
    first = seals_of(store)[0].position
    part = await exported(kernel, since=first, namespace=ACME)
    assert checked(store, part, seal=seal_hash(seals_of(store)[0])).omitted_count
    assert checked(store, await exported(kernel, namespace=AUDIT_NAMESPACE)).omitted_count


async def test_seals_are_found_by_position(store: MemoryStore, kernel: Kernel) -> None:
    log, seals = kernel.ports.log, seals_of(store)
    assert len(seals) > 4
    for position in range(store.events[-1].position + 2):
        at = [seal for seal in seals if seal.position <= position]
        over = [seal for seal in seals if seal.position >= position]
        assert await newest_seal_at(log, position) == (at[-1] if at else None)
        assert await seal_over(log, position) == (over[0] if over else None)


async def test_every_event_has_a_proof_that_holds_for_no_other(
    store: MemoryStore, kernel: Kernel
) -> None:
    key, positions = store.seal_key.public_bytes, [event.position for event in store.events[:-1]]
    proofs = [await proof_of(kernel, position) for position in positions]
    for position, proof in zip(positions, proofs, strict=True):
        shown = verify_proof(proof, key=key)
        assert f"position {position} " in shown["event"]
        over = bytes.fromhex(shown["seal_hash"])
        assert verify_proof(proof, key=key, seal=over)["seal_pinned"]
        with pytest.raises(NotWhole):
            verify_proof(proof, key=bytes(32))
        with pytest.raises(NotWhole):
            verify_proof(proof, key=key, seal=bytes(32))
    assert len(set(proofs)) == len(proofs)


async def test_the_newest_seal_is_proven_by_the_next(store: MemoryStore, kernel: Kernel) -> None:
    newest = store.events[-1]
    assert newest.type == SEALED_TYPE
    with pytest.raises(NotSealedYet):
        await proof_of(kernel, newest.position)
    await start_runs(kernel, 1)
    assert verify_proof(await proof_of(kernel, newest.position))


async def test_an_event_that_is_not_there_has_no_proof(store: MemoryStore, kernel: Kernel) -> None:
    log, run = kernel.ports.log, store.events[0].stream
    with pytest.raises(NotFound):
        await event_at(log, stream=run, version=99, position=0)
    with pytest.raises(NotFound):
        await event_at(log, stream=StreamId("nobody"), version=1, position=0)
    with pytest.raises(NotFound):
        await event_at(log, stream=StreamId(""), version=0, position=10**9)
    assert (await event_at(log, stream=run, version=1, position=0)).stream == run


@pytest.mark.parametrize("damage", [b"\xff damaged", None])
async def test_a_seal_that_somebody_changed_or_took_away_is_named(
    store: MemoryStore, damage: bytes | None
) -> None:
    kernel = await start_kernel(store, seals=BY_COUNT)
    await start_runs(kernel, 27)
    await kernel.partition.sealer.seal_now()
    seals = store.stream_events(seals_stream(P0))
    middle = len(seals) // 2
    bad = seals[middle]
    if damage is None:
        del seals[middle]
    else:
        seals[middle] = seals[middle]._replace(stored_bytes=damage)
    under = bad.position - 1  # Some event that the seal covers.
    for asked in (exported(kernel, since=bad.position), proof_of(kernel, under)):
        with pytest.raises(SealBroken, match=f"seal {middle + 1} "):
            await asked
    assert verify_proof(await proof_of(kernel, store.events[0].position))
    await kernel.stop()


@pytest.mark.parametrize("damage", [b"\xff damaged", None])
async def test_a_log_with_a_broken_seal_is_exported_and_the_file_shows_it(
    store: MemoryStore, kernel: Kernel, damage: bytes | None
) -> None:
    for index, event in enumerate(store.events):
        if event.type != SEALED_TYPE or event is store.events[-1]:
            continue
        seals = store.stream_events(seals_stream(P0))
        before, seals_before = list(store.events), list(seals)
        if damage is None:
            del store.events[index], seals[event.version - 1]
        else:
            bad = event._replace(stored_bytes=damage)
            store.events[index] = seals[event.version - 1] = bad
        with pytest.raises(NotWhole, match=r"position|seal"):
            checked(store, await exported(kernel))
        for since in (each.position for each in before):
            with suppress(SealBroken):
                data = await exported(kernel, since=since)
                if since < event.position:
                    with pytest.raises(NotWhole):
                        checked(store, data)
        store.events, seals[:] = before, seals_before


@pytest.mark.parametrize("damage", [b"\xff damaged", None])
async def test_what_was_changed_under_a_seal_is_found_and_can_still_be_exported(
    store: MemoryStore, damage: bytes | None
) -> None:
    kernel = await start_kernel(store, seals=NEVER)
    await start_runs(kernel, 9)
    await start(kernel, namespace=ACME)
    await kernel.partition.sealer.seal_now()
    bad = store.events[4]
    stored_bytes = damage or bad.stored_bytes.replace(b"test.body", b"test.b0dy")
    assert stored_bytes != bad.stored_bytes
    store.events[4] = bad._replace(stored_bytes=stored_bytes)
    with pytest.raises(SealBroken):
        await proof_of(kernel, store.events[2].position)
    for namespace in (ALL, NAMESPACE, ACME):
        with pytest.raises(NotWhole, match=r"position"):
            checked(store, await exported(kernel, namespace=namespace))
    await kernel.stop()
