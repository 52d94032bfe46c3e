"""The trap's other processes: writers, the relay and the projector, none in another's way."""

from __future__ import annotations

import asyncio
import json
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

from tests.trap.follower import Said
from tests.trap.subscribers import Tally

ROOT = Path(__file__).resolve().parents[2]
WRITER_PROCESSES = 2
"""More than the machine has processors would wait for each other there."""


class Held(NamedTuple):
    """What writers have held open, and how much of it was rolled back."""

    held_count: int
    rolled_back_count: int


async def write(
    dsn: str, owner_epoch: int, *, run_count: int, writer_count: int, seed: int
) -> Held:
    """Append so many runs over so many connections, in a few processes."""
    shares = zip(_shared(run_count), _shared(writer_count), strict=True)
    writing = [
        _written(
            *("--dsn", dsn, "--owner-epoch", str(owner_epoch), "--seed", f"{seed}-{number}"),
            *("--runs", str(runs), "--writers", str(writers)),
        )
        for number, (runs, writers) in enumerate(shares)
    ]
    held = await asyncio.gather(*writing)
    return Held(sum(each.held_count for each in held), sum(each.rolled_back_count for each in held))


@asynccontextmanager
async def relaying(dsn: str, nats_url: str, tally: Tally) -> AsyncIterator[None]:
    """Have a relay follow the log; the tally has what it says."""
    async with _follower("relay", dsn, nats_url) as process:
        hearing = asyncio.create_task(_hear(process, tally))
        try:
            yield
        finally:
            hearing.cancel()
            await asyncio.wait({hearing})


@asynccontextmanager
async def projecting(dsn: str, nats_url: str) -> AsyncIterator[None]:
    """Have a projector follow the log with all views."""
    async with _follower("projector", dsn, nats_url):
        yield


@asynccontextmanager
async def _follower(role: str, dsn: str, nats_url: str) -> AsyncIterator[Process]:
    process = await _started("tests.trap.follower", role, "--dsn", dsn, "--nats", nats_url)
    try:
        yield process
    finally:
        assert process.stdin is not None
        process.stdin.close()
        await process.communicate()


async def _hear(process: Process, tally: Tally) -> None:
    assert process.stdout is not None
    while line := await process.stdout.readline():
        tally.count, tally.position, tally.wrong = Said(**json.loads(line))
    tally.wrong = tally.wrong or "its process has ended"


async def _written(*arguments: str) -> Held:
    process = await _started("tests.trap.writers", *arguments)
    try:
        told, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:
        raise RuntimeError(f"writers ended with status {process.returncode}: see above")
    return Held(**json.loads(told))


async def _started(module: str, *arguments: str) -> Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", module, *arguments), stdin=PIPE, stdout=PIPE, cwd=ROOT
    )


def _shared(count: int) -> list[int]:
    each, rest = divmod(count, WRITER_PROCESSES)
    return [each + (number < rest) for number in range(WRITER_PROCESSES)]
