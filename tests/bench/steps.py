"""How many steps a one-task run takes in the kernel: what no other work on the machine changes.

Run: `python -m tests.bench.steps [--top N]`; one JSON line, then the N functions with the most
steps. A kernel on the memory log starts runs by calls of their own, leases their tasks to a worker
made of frames and hears the outcomes, many in a frame. Counted are the calls and the bytecodes of
our own Python: no wire, no parsing of requests, nothing of what the libraries do.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import sys
from collections import Counter
from types import CodeType, FrameType
from typing import Any

import structlog
from stretto.work.v1 import work_pb2
from stretto_core.eventlog.memory import MemoryStore
from stretto_kernel.kernel import Kernel

from tests.unit.kernel.harness import FrameWorker, new_store, start, start_kernel
from tests.waiting import until

RUNS_PER_WAVE = 20
EVENTS_PER_RUN = 4


class Steps:
    """Counts while it is the interpreter's trace function."""

    def __init__(self) -> None:
        self.calls: Counter[CodeType] = Counter()
        self.bytecodes: Counter[CodeType] = Counter()

    def __call__(self, frame: FrameType, happened: str, _: Any) -> Steps | None:
        """See `sys.settrace`."""
        code = frame.f_code
        if happened == "call":
            # Records and tuples are made by functions that have no file.
            if "/stretto_" not in code.co_filename and code.co_filename != "<string>":
                return None
            self.calls[code] += 1
            frame.f_trace_opcodes, frame.f_trace_lines = True, False
        elif happened == "opcode":
            self.bytecodes[code] += 1
        return self


class Bench:
    """A kernel, its log and a worker."""

    def __init__(self, kernel: Kernel, store: MemoryStore) -> None:
        self._kernel = kernel
        self._store = store
        self._worker = FrameWorker(kernel, credits=RUNS_PER_WAVE)

    async def wave(self) -> None:
        """Start runs, and end them."""
        events = len(self._store.events)
        await asyncio.gather(*(start(self._kernel) for _ in range(RUNS_PER_WAVE)))
        worker = self._worker
        await until(lambda: len(worker.assignments) == RUNS_PER_WAVE)
        succeeded = work_pb2.OutcomeSucceeded()
        outcomes = [
            work_pb2.Outcome(token=each.token, succeeded=succeeded) for each in worker.assignments
        ]
        worker.frames.clear()
        worker.say(outcomes=outcomes)
        worker.grant(RUNS_PER_WAVE)
        ended = events + EVENTS_PER_RUN * RUNS_PER_WAVE
        await until(lambda: len(self._store.events) >= ended)


async def count(waves: int) -> Steps:
    """Return what so many waves took, after one that warms everything up."""
    store = new_store()
    kernel = await start_kernel(store)
    await kernel.partition.sealer.ready()
    bench, steps = Bench(kernel, store), Steps()
    await bench.wave()
    for _ in range(waves):
        sys.settrace(steps)
        await bench.wave()
        sys.settrace(None)
    await kernel.stop()
    return steps


def main() -> None:
    """Print what was counted."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--waves", type=int, default=10)
    parser.add_argument("--top", type=int, default=0)
    asked = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    steps = asyncio.run(count(asked.waves))
    runs = asked.waves * RUNS_PER_WAVE
    figures = {
        "calls_per_run": round(steps.calls.total() / runs),
        "bytecodes_per_run": round(steps.bytecodes.total() / runs),
    }
    print(json.dumps(figures))  # noqa: T201 - the figures are the purpose
    for code, taken in steps.bytecodes.most_common(asked.top):
        calls = steps.calls[code] / runs
        print(f"{taken / runs:8.1f} {calls:7.2f} {code.co_qualname}")  # noqa: T201


if __name__ == "__main__":
    main()
