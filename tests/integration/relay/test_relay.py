"""The relay on a real NATS server: at least once, in order, whatever happens to the server."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import nats
import pytest
from nats.aio.msg import Msg
from nats.js.errors import APIError
from stretto.eventlog.v1.recorded_event_pb2 import RecordedEvent
from stretto.eventlog.v1.relayed_events_pb2 import RelayedEvents
from stretto_core.bus import Hint
from stretto_core.bus.jetstream import STREAM, JetStreamBus
from stretto_core.errors import Unavailable
from stretto_core.eventlog.memory import MemoryLog, MemoryStore
from stretto_core.eventlog.recorded import StoredEvent
from stretto_core.ids import Partition
from stretto_core.localstack.child import ChildFailed
from stretto_core.localstack.nats import EmbeddedNats, port_before
from stretto_kernel.relay.messages import MESSAGE_EVENTS_MAX
from stretto_kernel.relay.place import RELAY
from stretto_kernel.relay.relay import WINDOW_BYTES_MAX, WINDOW_MESSAGES, Relay, windows_of

from tests.cut_connections import cut_connections
from tests.jetstream import wipe
from tests.ports import free_port
from tests.unit.kernel.harness import FrameWorker, graph, new_store, start, start_kernel, task
from tests.waiting import until

P0 = Partition("p0")


async def kept(url: str) -> list[tuple[str, int]]:
    """Return (run, version) of every event JetStream holds, in its order."""
    client = await nats.connect(url)
    stream = client.jetstream()
    found: list[tuple[str, int]] = []
    state = (await stream.stream_info(STREAM)).state
    for sequence in range(state.first_seq, state.last_seq + 1):
        message = await stream.get_msg(STREAM, sequence)
        assert message.data is not None
        for event in RelayedEvents.FromString(message.data).events:
            recorded = RecordedEvent.FromString(event.stored_bytes)
            assert recorded.version == event.version
            found.append((recorded.stream, event.version))
    await client.close()
    return found


class Board:
    """Where a relay says that it stands still."""

    def __init__(self) -> None:
        self.stop: tuple[int, str, str] | None = None

    async def note_stop(self, position: int, reason: str, message: str) -> None:
        self.stop = (position, reason, message)

    async def note_following(self) -> None:
        self.stop = None


@asynccontextmanager
async def relaying(log: MemoryLog, url: str, board: Board | None = None) -> AsyncIterator[Relay]:
    bus = JetStreamBus(url)
    relay = Relay(log, bus, board or Board())
    running = asyncio.create_task(relay.run())
    yield relay
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running
    await bus.close()


async def all_events(log: MemoryLog) -> list[StoredEvent]:
    return list((await log.read_all(limit=10_000)).events)


def first_seen(found: list[tuple[str, int]]) -> list[tuple[str, int]]:
    return list(dict.fromkeys(found))


async def start_runs(store: MemoryStore, count: int) -> MemoryLog:
    """Record `count` more runs; their tasks are leased."""
    kernel = await start_kernel(store)
    worker = FrameWorker(kernel, credits=count)
    for _ in range(count):
        await start(kernel, graph(task("a")))
    await until(lambda: len(worker.assignments) == count)
    await kernel.stop()
    return MemoryLog(store, exclusive=False)


async def caught_up(relay: Relay, log: MemoryLog) -> None:
    head = await log.position()
    await until(lambda: relay.position == head)


async def test_what_is_recorded_is_published_in_order_and_resumed_where_it_was(
    fresh_nats: str,
) -> None:
    log = await start_runs(new_store(), 5)
    async with relaying(log, fresh_nats) as relay:
        await caught_up(relay, log)
    assert await log.tracking_position(RELAY) == await log.position()
    expected = [(event.stream, event.version) for event in await all_events(log)]
    found = await kept(fresh_nats)
    assert sorted(found) == sorted(expected)
    for run in {stream for stream, _ in expected}:
        versions = [version for stream, version in found if stream == run]
        assert versions == sorted(versions)
    async with relaying(log, fresh_nats) as relay:
        await until(lambda: relay.position > 0)
    assert await kept(fresh_nats) == found, "a relay that starts again repeats nothing it saved"


async def test_a_wiped_jetstream_is_made_again_and_fed_on(fresh_nats: str) -> None:
    store = new_store()
    log = await start_runs(store, 3)
    async with relaying(log, fresh_nats) as relay:
        await caught_up(relay, log)
        before = await log.position()
        await wipe(fresh_nats)
        await start_runs(store, 1)
        await caught_up(relay, log)
    after = [
        (event.stream, event.version) for event in await all_events(log) if event.position > before
    ]
    assert after
    assert first_seen(await kept(fresh_nats)) == after


async def test_a_server_that_is_killed_and_wiped_costs_nothing_that_comes_after(
    tmp_path: Path,
) -> None:
    server = EmbeddedNats(directory=tmp_path, port=free_port())
    await server.start()
    try:
        store = new_store()
        log = await start_runs(store, 2)
        async with relaying(log, server.url()) as relay:
            await caught_up(relay, log)
            before = await log.position()
            assert server.pid is not None
            os.kill(server.pid, signal.SIGKILL)
            await start_runs(store, 1)
            assert relay.position == before, "nothing is taken for published while nobody took it"
            await server.stop()
            shutil.rmtree(server.store_directory)
            await server.start()
            await caught_up(relay, log)
        found = first_seen(await kept(server.url()))
        late = [event for event in await all_events(log) if event.position > before]
        assert found == [(event.stream, event.version) for event in late]
    finally:
        await server.stop()


async def test_a_message_published_again_is_stored_once(fresh_nats: str) -> None:
    bus = JetStreamBus(fresh_nats)
    hint = Hint("acme.run.a", P0, 7, RelayedEvents(partition="p0").SerializeToString())
    await bus.publish([hint])
    await bus.publish([hint])
    client = await nats.connect(fresh_nats)
    assert (await client.jetstream().stream_info(STREAM)).state.messages == 1
    await client.close()
    await bus.close()


async def test_a_connection_that_the_server_refuses_for_good_is_made_anew(
    fresh_nats: str,
) -> None:
    clients: list[asyncio.StreamWriter] = []
    host, _, port = fresh_nats.rpartition("@")[2].removeprefix("nats://").partition(":")

    async def between(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        clients.append(writer)
        from_server, to_server = await asyncio.open_connection(host, int(port))
        await asyncio.gather(carry(reader, to_server), carry(from_server, writer))

    server = await asyncio.start_server(between, "127.0.0.1", 0)
    through = fresh_nats.replace(f":{port}", f":{server.sockets[0].getsockname()[1]}")
    bus = JetStreamBus(through)
    heard = await bus.subscribe("a.>")
    await bus.publish([Hint("a.b", P0, 1)])
    for client in clients:
        client.write(b"-ERR 'Maximum Connections Exceeded'\r\n")
        await client.drain()
        client.close()
    async with asyncio.timeout(60):
        while True:
            with suppress(Unavailable):
                await bus.publish([Hint("a.c", P0, 2)])
                break
    async with asyncio.timeout(60):
        found = heard.__aiter__()
        assert [(await anext(found)).position, (await anext(found)).position] == [1, 2]
    await bus.close()
    server.close()


async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Pass on what one side says until it is gone."""
    with suppress(OSError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    writer.close()


async def test_a_bus_nobody_serves_is_unavailable_and_says_no_token() -> None:
    bus = JetStreamBus(f"nats://very-secret@127.0.0.1:{free_port()}")
    with pytest.raises(Unavailable) as refused:
        await bus.publish([Hint("a", P0, 1)])
    assert "very-secret" not in str(refused.value)
    await bus.close()


async def test_the_embedded_server_lets_in_only_who_has_its_token(tmp_path: Path) -> None:
    server = EmbeddedNats(directory=tmp_path, port=free_port())
    await server.start()
    try:
        bus = JetStreamBus(f"nats://wrong@127.0.0.1:{server.port}")
        with pytest.raises(Unavailable):
            await bus.publish([Hint("a", P0, 1)])
        await bus.close()
        for name in ("token", "nats.conf"):
            assert (tmp_path / name).stat().st_mode & 0o077 == 0
    finally:
        await server.stop()


async def test_a_port_that_is_taken_fails_the_start_with_the_servers_own_words(
    tmp_path: Path,
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        server = EmbeddedNats(directory=tmp_path, port=taken.getsockname()[1])
        taken.listen()
        with pytest.raises(ChildFailed, match="in use"):
            await server.start()


async def test_a_server_takes_the_port_it_had(tmp_path: Path) -> None:
    assert port_before(tmp_path) == 0
    server = EmbeddedNats(directory=tmp_path, port=free_port())
    await server.start()
    await server.stop()
    assert port_before(tmp_path) == server.port


def damaged(store: MemoryStore, index: int, **damage: object) -> StoredEvent:
    """Damage an event of the log and return what it was."""
    sound = store.events[index]
    false = sound._replace(**damage)  # type: ignore[arg-type]
    store.events[index] = false
    of_stream = store.stream_events(sound.stream)
    of_stream[of_stream.index(sound)] = false
    return sound


def with_other_hash(event: StoredEvent) -> bytes:
    recorded = RecordedEvent.FromString(event.stored_bytes)
    recorded.previous_hash = bytes(32)
    return recorded.SerializeToString(deterministic=True)


@pytest.mark.parametrize("damage", ["bytes", "hash", "type", "place"])
async def test_the_relay_stands_still_before_a_damaged_event_and_passes_over_nothing(
    fresh_nats: str, damage: str
) -> None:
    store = new_store()
    log = await start_runs(store, 4)
    index = next(i for i, event in enumerate(store.events) if event.version == 2)
    sound = store.events[index]
    damages: dict[str, dict[str, object]] = {
        "bytes": {"stored_bytes": b"\xff"},
        "hash": {"stored_bytes": with_other_hash(sound)},
        "type": {"type": "stretto.run.v1.Other"},
        "place": {"stored_bytes": store.events[0].stored_bytes},
    }
    damaged(store, index, **damages[damage])
    board = Board()
    async with relaying(log, fresh_nats, board) as relay:
        await until(lambda: board.stop is not None)
        assert board.stop is not None
        position, reason, message = board.stop
        assert (position, reason) == (sound.position, "UNREADABLE_EVENT")
        assert sound.stream in message
        before = [(e.stream, e.version) for e in store.events[:index]]
        assert sorted(await kept(fresh_nats)) == sorted(before)
        await until(lambda: store.tracking[RELAY] == store.events[index - 1].position)
        # An operator may pass over it: that is said with its position.
        assert await log.move_tracking(RELAY, sound.position, expected=store.tracking[RELAY])
        await caught_up(relay, log)
        assert board.stop is None
    found = await kept(fresh_nats)
    rest = [(e.stream, e.version) for e in store.events if e.position > sound.position]
    assert sorted(found) == sorted(before + rest)


async def test_the_relay_begins_again_where_its_place_is_set(fresh_nats: str) -> None:
    store = new_store()
    log = await start_runs(store, 3)
    async with relaying(log, fresh_nats) as relay:
        await caught_up(relay, log)
        head = relay.position
        await until(lambda: store.tracking[RELAY] == head)
        await wipe(fresh_nats)
        assert await log.move_tracking(RELAY, 0, expected=head)
        everything = [(event.stream, event.version) for event in await all_events(log)]

        async def all_is_back() -> bool:
            with suppress(APIError):  # The stream is not there yet, or empty.
                return sorted(first_seen(await kept(fresh_nats))) == sorted(everything)
            return False

        async with asyncio.timeout(60):
            while not await all_is_back():
                pass
    assert store.tracking[RELAY] == head


async def begins_again(log: MemoryLog, store: MemoryStore, position: int) -> None:
    """Set the relay's place and return once it has published all from there on."""
    head = await log.position()
    await until(lambda: store.tracking[RELAY] == head)
    assert await log.move_tracking(RELAY, position, expected=head)
    await until(lambda: store.tracking[RELAY] == head)


async def test_what_was_just_published_is_published_again_when_somebody_asks_for_it(
    fresh_nats: str,
) -> None:
    """The server drops ids that it took in the last minutes, though what bore them is purged."""
    store = new_store()
    log = await start_runs(store, 2)
    everything = {(event.stream, event.version) for event in await all_events(log)}
    async with relaying(log, fresh_nats) as relay:
        await caught_up(relay, log)
        client = await nats.connect(fresh_nats)
        await client.jetstream().purge_stream(STREAM)
        await client.close()
        # A message of the second half has the last position of one of the whole.
        first = store.events[0].position
        await begins_again(log, store, first)
        assert len(set(await kept(fresh_nats))) == len(everything) - 1
        await begins_again(log, store, 0)
        assert set(await kept(fresh_nats)) == everything


@pytest.mark.parametrize("seed", [1, 2])
async def test_streams_that_are_wiped_and_connections_that_are_cut_lose_nothing(
    fresh_nats: str, seed: int
) -> None:
    """A consumer that listens all the while hears of every event, whatever else happens."""
    store, chance = new_store(), random.Random(seed)
    log = MemoryLog(store, exclusive=False)
    heard: dict[str, list[int]] = {}
    client = await nats.connect(fresh_nats)

    async def hear(message: Msg) -> None:
        relayed = RelayedEvents.FromString(message.data)
        assert 0 < len(relayed.events) <= MESSAGE_EVENTS_MAX
        assert (message.headers or {})["Nats-Msg-Id"] == f"p0:{relayed.events[-1].position}"
        run = message.subject.rpartition(".")[2]
        seen = heard.setdefault(run, [])
        for event in relayed.events:
            if not seen or event.version > seen[-1]:
                seen.append(event.version)

    await client.subscribe("stretto.default.run.*", cb=hear)
    token, _, address = fresh_nats.removeprefix("nats://").rpartition("@")
    async with (
        cut_connections(address, seed, bytes_max=1_500) as way,
        relaying(log, f"nats://{token}@{way.address}") as relay,
    ):
        for _ in range(6):
            await start_runs(store, 2)
            if chance.random() < 0.5:
                await wipe(fresh_nats)
        await until(lambda: way.cut_count >= 3)
        way.bytes_max = None
        await caught_up(relay, log)
    expected: dict[str, list[int]] = {}
    for event in store.events:
        expected.setdefault(event.stream, []).append(event.version)
    await until(lambda: heard == expected)
    await client.close()


def test_what_is_under_way_is_bounded_by_count_and_bytes() -> None:
    hints = [Hint(f"s{n}", P0, n, bytes(n * 40)) for n in range(900)]
    windows = list(windows_of(hints))
    assert [hint for window in windows for hint in window] == hints
    for window in windows:
        assert len(window) <= WINDOW_MESSAGES
        assert len(window) == 1 or sum(len(hint.body) for hint in window) <= WINDOW_BYTES_MAX
    assert max(map(len, windows)) == WINDOW_MESSAGES
