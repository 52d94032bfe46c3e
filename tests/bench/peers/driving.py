"""W1, W2 and W3 as a client of any system does them; runs in the peers' own environment.

Knows the standard library only. Clocks start at the first submit and stop when the client has seen
the last end, as in the bench of ours. W3 is for systems that compose tasks themselves.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Sequence
from typing import Any, Protocol, runtime_checkable

from tests.waiting import passed

LOOK_S = 0.005


class Peer(Protocol):
    """What a system offers its client; the task takes an integer and returns it."""

    async def submit(self, n: int) -> Any:
        """Submit one task; durable when this returns."""
        ...

    async def all_ended(self, submitted: Sequence[Any]) -> None:
        """Return when the client has seen every one of them complete."""
        ...

    async def run(self, n: int) -> None:
        """Submit one task and have its result."""
        ...


@runtime_checkable
class Composing(Protocol):
    """A system whose runs can have several tasks; each returns with the run's result."""

    async def fan(self, tasks: int) -> None:
        """Run that many independent tasks and one that joins them, or the same within a body."""
        ...

    async def chain(self, tasks: int) -> None:
        """Run that many tasks, each taking what the one before it returned."""
        ...


async def measure(peer: Peer) -> None:
    """Measure once for each order on stdin, one a line.

    An order: {"runs", "outstanding", "sequence", "fan_tasks", "chain_tasks"}.
    """
    for line in iter(sys.stdin.readline, ""):
        order: dict[str, int] = json.loads(line)
        told = {
            "tasks_per_s": await _throughput(peer, order["runs"], order["outstanding"]),
            **await _latency(peer, order["sequence"]),
        }
        if isinstance(peer, Composing):
            told["wall_s"] = await _took_s(peer.fan(order["fan_tasks"]))
            chain_s = await _took_s(peer.chain(order["chain_tasks"]))
            told["ms_per_task"] = chain_s * 1_000 / order["chain_tasks"]
        sys.stdout.write(json.dumps(told) + "\n")
        sys.stdout.flush()


async def _throughput(peer: Peer, runs: int, outstanding: int) -> float:
    left = iter(range(runs))
    submitted: list[Any] = []

    async def caller() -> None:
        for n in left:
            submitted.append(await peer.submit(n))

    began_s = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(outstanding)))
    await peer.all_ended(submitted)
    return runs / (time.perf_counter() - began_s)


async def _latency(peer: Peer, runs: int) -> dict[str, float]:
    took_ms = []
    for n in range(runs):
        took_ms.append(await _took_s(peer.run(n)) * 1_000)
    took_ms.sort()
    return {"p50_ms": took_ms[len(took_ms) // 2], "p99_ms": took_ms[len(took_ms) * 99 // 100]}


async def _took_s(work: Awaitable[None]) -> float:
    began_s = time.perf_counter()
    await work
    return time.perf_counter() - began_s


async def a_moment() -> None:
    """Let a moment pass between two looks at something that tells nobody when it is done."""
    await passed(LOOK_S)
