"""A worker of the SDK, as a user would write it: `python -m tests.bench.worker --address A`.

`noop` takes an integer and returns it; `count` takes a list and returns its length; `held` writes
its start and its end to a ledger, and ends once a gate is open.
"""

from __future__ import annotations

import argparse
import asyncio
import os
from pathlib import Path

from stretto_sdk import TaskContext, Worker

from tests.waiting import until

HELD_S_MAX = 60.0
_gates: dict[str, asyncio.Task[None]] = {}


async def noop(ctx: TaskContext, n: int) -> int:
    """Return what came in."""
    return n


async def count(ctx: TaskContext, **given: object) -> int:
    """Return how many inputs came in."""
    return len(given)


async def held(ctx: TaskContext, ledger: str, gate: str) -> str:
    """Note the start, wait for the gate, note the end."""
    _note(ledger, f"start {ctx.run}")
    if gate not in _gates:  # One look at the gate serves all bodies of this process.
        _gates[gate] = asyncio.create_task(until(Path(gate).exists, HELD_S_MAX))
    await asyncio.shield(_gates[gate])
    _note(ledger, f"end {ctx.run}")
    return ctx.run


def _note(ledger: str, line: str) -> None:
    file = os.open(ledger, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.write(file, f"{line}\n".encode())
    os.close(file)


def main() -> None:
    """Work until killed."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--address", required=True)
    arguments.add_argument("--slots", type=int, default=64)
    arguments.add_argument("--name", required=True)
    given = arguments.parse_args()
    worker = Worker(given.address, name=given.name, slots=given.slots)
    for function in (noop, count, held):
        worker.task(function)
    worker.run()


if __name__ == "__main__":
    main()
