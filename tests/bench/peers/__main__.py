"""Peers beside ours: `make bench-peers`, or `python -m tests.bench.peers --python P [--rounds N]`.

A round takes each system in turn, ours last: its processes are started, warmed, measured on the
workloads of docs/benchmarks.md, and ended, so that nothing of another runs meanwhile. Each peer has
a worker process and a client process of the environment that `--python` belongs to. One JSON line
per figure on stdout, and at the end a table for docs/benchmarks.md on stderr.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import os
import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import dataclass
from functools import partial

from tests.bench import speeds
from tests.bench.figures import Round, lines
from tests.bench.peers import stores
from tests.bench.peers.table import table
from tests.bench.scale import FULL, TOY, Scale
from tests.bench.speeds import say

READY_S = 60.0
WORKLOADS: Mapping[str, tuple[str, ...]] = {
    "W1-unary": ("tasks_per_s",),
    "W2": ("p50_ms", "p99_ms"),
    "W3-fan": ("wall_s",),
    "W3-chain": ("ms_per_task",),
}
"""What is measured, and the metrics that a round has for it; W3 where a system composes tasks."""
OURS = "stretto"


@dataclass(frozen=True, slots=True)
class PeerSystem:
    """A system: what holds its record, how it was set up, and its version there.

    Its module is named after it.
    """

    store: Callable[[str], AbstractAsyncContextManager[str]]
    how: str
    version: Callable[[str], str]


def _distribution(name: str) -> Callable[[str], str]:
    code = f"from importlib.metadata import version; print(version({name!r}))"
    return partial(stores.said_by, code=code)


PEERS: Mapping[str, PeerSystem] = {
    "restate": PeerSystem(
        stores.restate, "defaults: its log synced for each batch", stores.restate_version
    ),
    "celery": PeerSystem(
        stores.redis, "Redis, AOF synced always, late ack, threads", _distribution("celery")
    ),
    "procrastinate": PeerSystem(
        stores.postgres, "a queue only; NOTIFY, polled every 20 ms", _distribution("procrastinate")
    ),
    "dbos": PeerSystem(stores.postgres, "a queue polled every 20 ms", _distribution("dbos")),
}


async def _theirs(name: str, python: str, scale: Scale) -> Round:
    """Measure one round of a peer."""
    argv = (python, "-m", f"tests.bench.peers.{name}_peer")
    async with PEERS[name].store(python) as url:
        worker = await asyncio.create_subprocess_exec(
            *argv, "worker", url, stdout=asyncio.subprocess.PIPE
        )
        client = None
        try:
            async with asyncio.timeout(READY_S):
                while await _said(worker) != b"ready\n":
                    pass
            client = await asyncio.create_subprocess_exec(
                *argv,
                *("client", url),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
            )
            await _ask(client, scale, scale.warm_runs)
            return await _ask(client, scale, scale.independent_runs)
        finally:
            for process in (client, worker):
                if process is not None and process.returncode is None:
                    process.kill()
                    await process.wait()


async def _ask(client: asyncio.subprocess.Process, scale: Scale, runs: int) -> Round:
    assert client.stdin is not None
    order = {
        "runs": runs,
        "outstanding": scale.outstanding,
        "sequence": min(runs, scale.sequence_runs),
        "fan_tasks": min(runs, scale.fan_tasks),
        "chain_tasks": min(runs, scale.chain_tasks),
    }
    client.stdin.write(json.dumps(order).encode() + b"\n")
    measured: Round = json.loads(await _said(client))
    return measured


async def _said(process: asyncio.subprocess.Process) -> bytes:
    assert process.stdout is not None
    line = await process.stdout.readline()
    if not line:
        raise RuntimeError("a process ended; what it said is above")
    return line


async def _ours(scale: Scale) -> Round:
    """Measure one round of ours, on the stack that `make bench` has."""
    whole: dict[str, float] = {}
    once = dataclasses.replace(scale, rounds=1)
    measuring = speeds.independent_runs(once, list(WORKLOADS))
    async with aclosing(measuring) as measurements:  # type: ignore[type-var]
        async for name, measured, _ in measurements:
            whole |= {metric: measured[metric] for metric in WORKLOADS[name]}
    return whole


def _settings(name: str, python: str) -> dict[str, str]:
    if name == OURS:
        return {"system": OURS, "version": "here", "how": "unary starts, everything on"}
    peer = PEERS[name]
    return {"system": name, "version": peer.version(python), "how": peer.how}


async def bench(python: str, scale: Scale, only: tuple[str, ...]) -> bool:
    """Measure round by round; a system that fails is in no later round and ends no other."""
    whole = True
    settings: dict[str, dict[str, str]] = {}
    for name in (*PEERS, OURS):
        if only and name not in only:
            continue
        try:
            settings[name] = _settings(name, python)
        except stores.NotInstalled as missing:
            say(f"{name}: left out: {missing}")
    measured: dict[str, list[Round]] = {name: [] for name in settings}
    running = list(settings)
    for number in range(scale.rounds):
        for name in tuple(running):
            measure = _ours(scale) if name == OURS else _theirs(name, python, scale)
            try:
                each = await measure
            except Exception as error:
                whole = False
                running.remove(name)
                say(f"{name}: not measured to the end: {error!r}")
                continue
            figures = ", ".join(f"{metric} {value:.4g}" for metric, value in each.items())
            say(f"round {number + 1}, {name}: {figures}")
            measured[name].append(each)
    _print(measured, settings)
    return whole


def _print(measured: Mapping[str, list[Round]], settings: Mapping[str, Mapping[str, str]]) -> None:
    rows = {}
    for name, rounds in measured.items():
        if not rounds:
            continue
        rows["{system} {version} ({how})".format(**settings[name])] = rounds
        for workload, metrics in WORKLOADS.items():
            parts = [
                {metric: each[metric] for metric in metrics if metric in each} for each in rounds
            ]
            sys.stdout.writelines(f"{line}\n" for line in lines(workload, parts, settings[name]))
    sys.stdout.flush()
    ours = next((label for label in rows if label.startswith(OURS)), "")
    say("\n".join(table(rows, ours)))


def main() -> None:
    """Read the command line."""
    arguments = argparse.ArgumentParser(prog="tests.bench.peers", description=__doc__)
    arguments.add_argument("--python", required=True, help="of the peers' environment")
    arguments.add_argument("--only", default="", help="names, with commas between")
    arguments.add_argument("--rounds", type=int, help="how often each system is measured")
    arguments.add_argument("--toy", action="store_true", help="toy sizes: only shows that it runs")
    given = arguments.parse_args()
    scale = TOY if given.toy else FULL
    if given.rounds:
        scale = dataclasses.replace(scale, rounds=given.rounds)
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
    only = tuple(filter(None, given.only.split(",")))
    for name in only:
        if name not in (*PEERS, OURS):
            arguments.error(f"no system is named {name!r}; there are {', '.join((*PEERS, OURS))}")
    sys.exit(0 if asyncio.run(bench(given.python, scale, only)) else 1)


if __name__ == "__main__":
    main()
