"""The pipe by which programs write to the blackboard: every line in order, or a failure."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import cast

import pytest
from stretto.blackboard.v1 import blackboard_service_pb2 as pb
from stretto.common.v1.lease_pb2 import LeaseToken
from stretto_core.errors import InvalidArgument, Refusal, Unavailable
from stretto_core.ids.system import SystemIds
from stretto_core.telemetry.secret import Secret
from stretto_sdk.blackboard import Blackboard
from stretto_sdk.values import Blobs
from stretto_sdk.worker.effects import Ending, Failed, Succeeded
from stretto_worker.domain.redaction import Redaction
from stretto_worker.processes.board_pipe import (
    LINE_BYTES_MAX,
    LINES_WAITING_MAX,
    BoardPipe,
    parse_write,
)

from tests.waiting import until

TOKEN = LeaseToken(work_item="a", epoch=3)
DONE = Succeeded(None)
NOTHING = Redaction([])


class Keeper:
    """Answers writes and keeps them; `refusal` is what it refuses with; closed, it answers none."""

    def __init__(self) -> None:
        self.writes: list[tuple[str, str]] = []
        self.tokens: set[int] = set()
        self.refusal: Refusal | None = None
        self.blobs: Blobs = cast(Blobs, None)  # No line is so long that it needs them.
        self.open = asyncio.Event()
        self.open.set()

    async def put(self, request: pb.PutEntriesRequest) -> pb.PutEntriesResponse:
        await self._answer(request.token)
        self.writes += [(each.key, each.value.json) for each in request.writes]
        return pb.PutEntriesResponse(revision=len(self.writes))

    async def delete(self, request: pb.DeleteEntriesRequest) -> pb.DeleteEntriesResponse:
        await self._answer(request.token)
        self.writes += [(each.key, "deleted") for each in request.deletions]
        return pb.DeleteEntriesResponse(revision=len(self.writes))

    async def get(self, request: pb.GetEntriesRequest) -> pb.GetEntriesResponse:
        raise AssertionError("a pipe reads nothing")

    async def list_page(self, request: pb.ListEntriesRequest) -> pb.ListEntriesResponse:
        raise AssertionError("a pipe reads nothing")

    def watch(self, request: pb.WatchEntriesRequest) -> AsyncGenerator[pb.WatchEntriesResponse]:
        raise AssertionError("a pipe reads nothing")

    async def _answer(self, token: LeaseToken) -> None:
        await self.open.wait()
        self.tokens.add(token.epoch)
        if self.refusal is not None:
            raise self.refusal


class Bench:
    def __init__(self, redaction: Redaction = NOTHING) -> None:
        self.keeper = Keeper()
        board = Blackboard(
            lambda: self.keeper, "namespaces/default/runs/r", new_id=SystemIds().uuid7,
            scope="a", token=TOKEN,
        )  # fmt: skip
        self.pipe = BoardPipe(board, redaction)

    def write(self, content: bytes) -> int:
        """Write as a program does that does not wait; returns how much went in."""
        descriptor = os.open(self.pipe.path, os.O_WRONLY | os.O_NONBLOCK)
        try:
            return os.write(descriptor, content)
        except BlockingIOError:
            return 0
        finally:
            os.close(descriptor)

    async def ending(self, ending: Ending = DONE) -> Ending:
        return await self.pipe.ending(ending)


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    made = Bench()
    yield made
    made.pipe.close()
    assert not made.pipe.path.parent.exists()


async def test_lines_are_written_in_order_under_the_lease(bench: Bench) -> None:
    bench.write(b'{"key": ":progress/a", "value": 1}\n\n{"key": ":progress/a", ')
    await until(lambda: len(bench.keeper.writes) == 1)
    bench.write(b'"delete": true}\n{"key": ":custom/b", "value": {"c": [null]}}')
    assert await bench.ending() is DONE, "also the last line, which has no end"
    assert bench.keeper.writes == [
        ("a:progress/a", "1"),
        ("a:progress/a", "deleted"),
        ("a:custom/b", '{"c":[null]}'),
    ]
    assert bench.keeper.tokens == {TOKEN.epoch}


async def test_the_first_refusal_fails_what_else_succeeded(bench: Bench) -> None:
    bench.write(b'{"key": ":custom/a", "value": 1}\nno json\n{"key": ":custom/b", "value": 2}\n')
    ended = await bench.ending()
    assert isinstance(ended, Failed)
    assert (ended.failure.reason, ended.failure.retryable) == ("BOARD_WRITE_REFUSED", False)
    assert ended.failure.message.startswith("line 2 of the blackboard's pipe: it is not JSON")
    assert [key for key, _ in bench.keeper.writes] == ["a:custom/a", "a:custom/b"]


async def test_a_kernel_that_stays_away_may_be_there_at_the_next_try(bench: Bench) -> None:
    bench.keeper.refusal = Unavailable("no connection")
    bench.write(b'{"key": ":custom/a", "value": 1}\n')
    ended = await bench.ending()
    assert isinstance(ended, Failed) and ended.failure.retryable
    failed = Failed(ended.failure)
    assert await bench.ending(failed) is failed, "the program's own failure stands"


async def test_while_nothing_is_answered_the_program_is_held_back(bench: Bench) -> None:
    bench.keeper.open.clear()
    line = b'{"key": ":custom/a", "value": 1}\n'
    written = 0

    def is_full() -> bool:
        nonlocal written
        taken = bench.write(line)
        written += taken
        return not taken

    await until(is_full)
    assert LINES_WAITING_MAX * len(line) < written < (1 << 20)
    bench.keeper.open.set()
    assert await bench.ending() is DONE
    assert len(bench.keeper.writes) == written // len(line), "and nothing of it is lost"


async def test_a_line_that_is_too_long_is_refused_and_not_kept(bench: Bench) -> None:
    parts = [b'{"key": ":custom/a", "value": "', *([b"x" * 4_096] * 40), b'"}\n']
    parts.append(b'{"key": ":custom/b", "value": 2}\n')
    for part in parts:
        await until(lambda part=part: bench.write(part) == len(part))  # type: ignore[misc]
    ended = await bench.ending()
    assert isinstance(ended, Failed)
    assert f"more than {LINE_BYTES_MAX} bytes" in ended.failure.message
    assert [key for key, _ in bench.keeper.writes] == ["a:custom/b"]


def test_a_secret_is_not_written() -> None:
    redaction = Redaction([Secret("open/sesame now")])
    write = parse_write(b'{"key": "custom/a", "value": {"open/sesame now": 1}}', redaction)
    assert write.value == {"[secret]": 1}


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b"[]", "must be an object"),
        (b"{}", "key: is required"),
        (b'{"key": "a", "vlaue": 1}', 'did you mean "value"'),
        (b'{"key": "a", "value": 1, "delete": true}', "cannot both be"),
        (b'{"key": "a", "expected": -1}', "expected"),
        (b"\xff", "not"),
    ],
)
def test_a_line_that_is_no_write_says_why(line: bytes, says: str) -> None:
    with pytest.raises(InvalidArgument, match=says):
        parse_write(line, NOTHING)


async def test_closed_it_writes_nothing_more(tmp_path: Path) -> None:
    bench = Bench()
    bench.keeper.open.clear()
    bench.write(b'{"key": ":custom/a", "value": 1}\n')
    bench.pipe.close()
    bench.pipe.close()
    bench.keeper.open.set()
    assert bench.keeper.writes == []
