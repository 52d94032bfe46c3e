"""The faulty network: delay, loss, repeats and cuts of frames between processes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from google.protobuf.wrappers_pb2 import Int64Value
from stretto_core.errors import DeadlineExceeded, NotFound
from stretto_core.testing.connection import ConnectionEnd, ConnectionLost
from stretto_core.testing.network import ConnectionRefused, Network
from stretto_core.testing.process import Process
from stretto_core.testing.seeded import random_for
from stretto_core.testing.virtual_loop import VirtualLoop
from stretto_core.testing.weather import CALM, Weather

ADDRESS = "server:1"
End = ConnectionEnd[Int64Value, Int64Value]


class Room:
    """A server that keeps what it receives, and a client."""

    def __init__(self, loop: VirtualLoop, weather: Weather = CALM) -> None:
        self.network = Network(random_for(7, "network"))
        self.network.weather = weather
        self.server = Process(loop, "server")
        self.client = Process(loop, "client")
        self.received: list[int] = []
        self.ended_with: list[Exception | None] = []
        listener = self.network.listen(ADDRESS, self.server)
        listener.streams["Stream"] = self.accept
        listener.calls["Double"] = self.double

    async def accept(self, end: End) -> None:
        try:
            async for frame in end.frames():
                self.received.append(frame.value)
        except ConnectionLost as lost:
            self.ended_with.append(lost)
            raise
        self.ended_with.append(None)

    async def double(self, request: Int64Value) -> Int64Value:
        self.received.append(request.value)
        if request.value < 0:
            raise NotFound("negative")
        return Int64Value(value=2 * request.value)

    async def connect(self) -> End:
        return await self.network.connect(self.client, ADDRESS, "Stream")

    async def call(self, value: int, timeout_s: float = 5.0) -> int:
        answer = await self.network.call(
            self.client, ADDRESS, "Double", Int64Value(value=value), timeout_s=timeout_s
        )
        assert isinstance(answer, Int64Value)
        return answer.value


def run(
    main: Callable[[Room], Coroutine[Any, Any, None]], weather: Weather = CALM, seed: int = 1
) -> None:
    loop = VirtualLoop(random_for(seed, "order"))

    async def in_room() -> None:
        await main(Room(loop, weather))

    loop.run(in_room())
    assert loop.failures == []


@pytest.mark.parametrize("seed", range(5))
def test_frames_of_a_stream_arrive_in_order_whatever_the_delays(seed: int) -> None:
    async def main(room: Room) -> None:
        end = await room.connect()
        for value in range(50):
            end.send(Int64Value(value=value))
        end.close()
        await asyncio.sleep(100)
        assert room.received == list(range(50))
        assert room.ended_with == [None]

    run(main, Weather(spike=0.2), seed)


def test_frames_are_copied_when_sent() -> None:
    async def main(room: Room) -> None:
        end = await room.connect()
        frame = Int64Value(value=1)
        end.send(frame)
        frame.value = 2
        await asyncio.sleep(1)
        assert room.received == [1]

    run(main)


def test_a_duplicate_follows_its_first_and_the_first_frame_has_none() -> None:
    async def main(room: Room) -> None:
        end = await room.connect()
        for value in range(3):
            end.send(Int64Value(value=value))
        await asyncio.sleep(1)
        assert room.received == [0, 1, 1, 2, 2]

    run(main, Weather(duplicate=1.0))


def test_a_broken_stream_loses_what_is_under_way_and_tells_both_sides() -> None:
    async def main(room: Room) -> None:
        end = await room.connect()
        end.send(Int64Value(value=1))
        await asyncio.sleep(1)
        end.send(Int64Value(value=2))
        assert room.network.break_streams(room.client) == 1
        await asyncio.sleep(1)
        assert room.received == [1]
        assert isinstance(room.ended_with[0], ConnectionLost)
        with pytest.raises(ConnectionLost):
            await end.receive()
        with pytest.raises(ConnectionLost):
            end.send(Int64Value(value=3))

    run(main)


def test_a_killed_process_ends_its_streams_and_its_address() -> None:
    async def main(room: Room) -> None:
        end = await room.connect()
        room.server.kill()
        with pytest.raises(ConnectionLost):
            await end.receive()
        with pytest.raises(ConnectionRefused):
            await room.connect()

    run(main)


def test_a_frozen_process_keeps_its_streams_and_reads_them_when_woken() -> None:
    async def main(room: Room) -> None:
        end = await room.connect()
        await asyncio.sleep(1)
        room.server.freeze()
        end.send(Int64Value(value=1))
        await asyncio.sleep(100)
        assert not end.has_ended
        assert room.received == []
        room.server.thaw()
        await asyncio.sleep(1)
        assert room.received == [1]

    run(main)


def test_a_partition_holds_frames_back_until_it_heals() -> None:
    async def main(room: Room) -> None:
        end = await room.connect()
        room.network.part("client", "server")
        end.send(Int64Value(value=1))
        end.send(Int64Value(value=2))
        with pytest.raises(DeadlineExceeded):
            await room.call(3)
        assert room.received == []
        room.network.heal()
        await asyncio.sleep(1)
        assert room.received == [1, 2]

    run(main)


def test_a_call_is_answered_or_refused_by_its_handler() -> None:
    async def main(room: Room) -> None:
        assert await room.call(21) == 42
        with pytest.raises(NotFound):
            await room.call(-1)

    run(main)


def test_a_lost_answer_leaves_the_outcome_unknown() -> None:
    async def main(room: Room) -> None:
        with pytest.raises(DeadlineExceeded):
            await room.call(1)
        assert room.received == [1]

    run(main, Weather(lose_response=1.0))


def test_a_lost_request_never_arrives() -> None:
    async def main(room: Room) -> None:
        with pytest.raises(DeadlineExceeded):
            await room.call(1)
        assert room.received == []

    run(main, Weather(lose_request=1.0))


def test_a_duplicated_call_is_handled_twice_and_answered_once() -> None:
    async def main(room: Room) -> None:
        assert await room.call(1) == 2
        await asyncio.sleep(1)
        assert room.received == [1, 1]

    run(main, Weather(duplicate=1.0))


def test_a_server_that_dies_in_a_call_is_told_to_the_caller() -> None:
    async def main(room: Room) -> None:
        call = asyncio.ensure_future(room.call(1))
        await asyncio.sleep(0)
        room.server.freeze()
        await asyncio.sleep(1)
        room.server.kill()
        with pytest.raises(ConnectionLost):
            await call

    run(main)
