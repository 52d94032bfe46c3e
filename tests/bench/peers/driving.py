"""W1 and W2 as a client of any system does them; runs in the peers' own environment.

Knows the standard library only. Clocks start at the first submit and stop when the client has seen
the last end, as in the bench of ours.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Sequence
from typing import Any, Protocol

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


async def measure(peer: Peer) -> None:
    """Measure once for each order on stdin: {"runs", "outstanding", "sequence"}, one a line."""
    for line in iter(sys.stdin.readline, ""):
        order: dict[str, int] = json.loads(line)
        told = {
            "tasks_per_s": await _throughput(peer, order["runs"], order["outstanding"]),
            **await _latency(peer, order["sequence"]),
        }
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
        began_s = time.perf_counter()
        await peer.run(n)
        took_ms.append((time.perf_counter() - began_s) * 1_000)
    took_ms.sort()
    return {"p50_ms": took_ms[len(took_ms) // 2], "p99_ms": took_ms[len(took_ms) * 99 // 100]}


async def a_moment() -> None:
    """Let a moment pass between two looks at something that tells nobody when it is done."""
    passed = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_later(LOOK_S, passed.set_result, None)
    await passed
