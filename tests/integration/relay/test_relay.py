"""The relay on a real NATS server: at least once, in order, whatever happens to the server."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import nats
import pytest
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
from stretto_kernel.relay.relay import RELAY, Relay

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


@asynccontextmanager
async def relaying(log: MemoryLog, url: str) -> AsyncIterator[Relay]:
    bus = JetStreamBus(url)
    relay = Relay(log, bus)
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
    async with asyncio.timeout(20):
        while True:
            with suppress(Unavailable):
                await bus.publish([Hint("a.c", P0, 2)])
                break
    async with asyncio.timeout(20):
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
