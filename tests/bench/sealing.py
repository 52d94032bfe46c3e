"""What the chain and the seals cost: CPU time per event, each against the same work without it.

Run: `python -m tests.bench.sealing [--task-us N]`. A real kernel on the memory log appends the
events of one-task runs; each round has one pass with everything, one without hashing the chain and
one without seals, in turn, so that the same moment of the machine is compared. The log's storing
and the edge are left out: the share is of the CPU time of a whole task (W1's `cpu_us_per_task`).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median
from time import process_time

import structlog
from google.protobuf.wrappers_pb2 import StringValue
from stretto_core.eventlog import codec
from stretto_core.eventlog.codec import Cause, Codec
from stretto_core.ids import Namespace, StreamId
from stretto_kernel.app.fact_writer import KERNEL_PRINCIPAL, Decider
from stretto_kernel.app.hosted_stream import HostedStream
from stretto_kernel.app.sealer import Sealer

from tests.unit.kernel.harness import new_store, start_kernel

EVENTS_PER_TASK = 4
BODY_BYTES = 200
TASKS = 5_000
WAVE_TASKS = 100
CAUSE = Cause(namespace=Namespace("default"), principal=KERNEL_PRINCIPAL, correlation_id="c" * 32)


class _Keeper:
    decider = Decider(
        Codec([StringValue]),
        lambda _, event: (event,) * EVENTS_PER_TASK,
        lambda _, __: None,
    )

    def stream_committed(self, hosted: HostedStream[None]) -> None: ...

    def stream_dropped(self, hosted: HostedStream[None]) -> None: ...

    def partition_closed(self, cause: Exception) -> None: ...


async def append_tasks() -> float:
    """Return the CPU time of appending the events of TASKS tasks, in seconds."""
    kernel = await start_kernel(new_store())
    facts, keeper = kernel.partition.facts, _Keeper()
    await kernel.partition.sealer.ready()
    body = StringValue(value="x" * BODY_BYTES)
    begin_s = process_time()
    for wave in range(0, TASKS, WAVE_TASKS):
        for number in range(wave, wave + WAVE_TASKS):
            hosted = HostedStream(StreamId(f"stream-{number:032}"), None, CAUSE.namespace)
            facts.take(keeper, hosted, body, CAUSE)
        await facts.answered(hosted, hosted.decided, own_facts=True)
    used_s = process_time() - begin_s
    await kernel.stop()
    return used_s


@contextmanager
def without(owner: object, name: str, stand_in: object) -> Iterator[None]:
    """Let something cost nothing for a while."""
    real = getattr(owner, name)
    setattr(owner, name, stand_in)
    try:
        yield
    finally:
        setattr(owner, name, real)


async def measure(rounds: int) -> dict[str, float]:
    """Return microseconds of CPU per event: of all of it, of the chain, of the seals."""
    await append_tasks()
    all_us, chain_us, seal_us = [], [], []
    to_us = 1e6 / (TASKS * EVENTS_PER_TASK)
    for _ in range(rounds):
        whole_us = await append_tasks() * to_us
        with without(codec, "chain_hash", lambda *_: bytes(32)):
            chain_us.append(whole_us - await append_tasks() * to_us)
        with without(Sealer, "_follow", lambda *_: None):
            seal_us.append(whole_us - await append_tasks() * to_us)
        all_us.append(whole_us)
    return {
        "append_us_per_event": median(all_us),
        "chain_us_per_event": median(chain_us),
        "seals_us_per_event": median(seal_us),
    }


def main() -> None:
    """Print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--task-us", type=float, default=1_420.0, help="W1's CPU time of a task")
    asked = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    figures = asyncio.run(measure(asked.rounds))
    both_us = figures["chain_us_per_event"] + figures["seals_us_per_event"]
    share = both_us * EVENTS_PER_TASK / asked.task_us
    shown = {name: round(value, 2) for name, value in figures.items()}
    print(  # noqa: T201 - the figures are the purpose
        json.dumps(shown | {"task_us": asked.task_us, "share_percent": round(100 * share, 2)})
    )


if __name__ == "__main__":
    main()
