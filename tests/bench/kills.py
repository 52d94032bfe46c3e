"""W4: SIGKILL of a worker, of the kernel, of PostgreSQL, while bodies run.

So many bodies have noted their start in a ledger and wait for a gate when the process is killed.
The gate opens at that instant: what is measured is how long the suite takes, not the bodies. The
clock runs from the SIGKILL to the last end that the client sees.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

from tests.bench.figures import Round
from tests.bench.scale import Scale
from tests.bench.speeds import Measurement
from tests.bench.stack import ClientProcess, Layout, Stack, running
from tests.waiting import until

START_S_MAX = 60.0


async def kills(scale: Scale, wanted: list[str]) -> AsyncIterator[Measurement]:
    """Each victim on a stack of its own, every round."""
    layout = Layout(worker_count=2, slots=scale.held_bodies // 2)
    settings: dict[str, object] = {
        "runs": scale.killed_runs,
        "bodies_in_flight": scale.held_bodies,
        "workers": layout.worker_count,
        "worker_slots": layout.slots,
    }
    for _ in range(scale.kill_rounds):
        for name in wanted:
            async with running(layout) as (stack, client):
                yield name, await _kill(scale, stack, client, name), settings


async def _kill(scale: Scale, stack: Stack, client: ClientProcess, name: str) -> Round:
    ledger, gate = stack.directory / "ledger", stack.directory / "gate"
    await client.do("sequence", runs=min(scale.warm_runs, scale.sequence_runs))
    client.begin("held", runs=scale.killed_runs, ledger=str(ledger), gate=str(gate))
    await client.told()
    await until(lambda: len(_noted(ledger, "start")) == scale.held_bodies, START_S_MAX)
    killed_s = time.monotonic()
    measured: dict[str, float] = {}
    match name:
        case "W4-worker":
            _sigkill(stack.workers[0].pid)
            gate.touch()
        case "W4-kernel":
            _sigkill(stack.kernel.pid)
            gate.touch()
            await stack.kernel.wait_ended()
            await stack.start_kernel()
            measured["serving_s"] = time.monotonic() - killed_s
        case _:
            _sigkill(stack.postgres.pid)
            gate.touch()
            await stack.postgres.wait_ended()
            await stack.start_postgres()
    told = await asyncio.wait_for(client.told(), START_S_MAX)
    return {
        **measured,
        "all_done_s": told["last_s"] - killed_s,
        "lost": told["lost"],
        "accepted_twice": told["accepted_twice"],
        "ended_twice": sum(count > 1 for count in _noted(ledger, "end").values()),
    }


def _noted(ledger: Path, word: str) -> Counter[str]:
    lines = ledger.read_text().splitlines() if ledger.exists() else []
    return Counter(line.split()[1] for line in lines if line.startswith(word))


def _sigkill(pid: int | None) -> None:
    assert pid is not None, "only what runs is killed"
    os.kill(pid, signal.SIGKILL)
