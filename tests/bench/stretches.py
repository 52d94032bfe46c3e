"""The kernel with a stopwatch on its loop: `python -m tests.bench.stretches FILE`.

Runs the kernel on asyncio's own loop, whose callbacks can be timed, and writes the longest ones to
FILE when it ends, in milliseconds of the thread's CPU time: a busy machine does not show. Of each
it says when it was, since the kernel's start, and how much of it went into collecting garbage, of
which generations. Nothing of this is in the kernel itself.
"""

from __future__ import annotations

import asyncio
import gc
import heapq
import json
import sys
import time
from pathlib import Path
from typing import Any

import uvloop

KEPT = 20


def main() -> None:
    """Run the kernel and write what was timed."""
    path = Path(sys.argv.pop(1))
    longest: list[tuple[float, str]] = []
    plain: Any = asyncio.Handle._run
    collections = _Collections()
    gc.callbacks.append(collections.note)
    started_s = time.monotonic()

    def timed(handle: Any) -> None:
        collections.forget()
        began_ns = time.thread_time_ns()
        plain(handle)
        took_ms = (time.thread_time_ns() - began_ns) / 1_000_000
        if len(longest) < KEPT or took_ms > longest[0][0]:
            at_s = time.monotonic() - started_s
            said = f"{_named(handle)}, {at_s:.1f} s from the start{collections}"
            put = heapq.heappush if len(longest) < KEPT else heapq.heapreplace
            put(longest, (took_ms, said))

    kinds: Any = (asyncio.Handle, uvloop)
    kinds[0]._run = timed
    kinds[1].run = asyncio.run
    # Loaded after the loop was chosen.
    from stretto_kernel.__main__ import main as run_kernel  # noqa: PLC0415

    try:
        run_kernel()
    finally:
        ordered = sorted(longest, reverse=True)
        path.write_text("".join(json.dumps(each) + "\n" for each in ordered))


class _Collections:
    """The garbage collections of the callback that runs now."""

    def __init__(self) -> None:
        self._began_ns = 0
        self._took_ms: list[str] = []

    def note(self, phase: str, info: dict[str, int]) -> None:
        """See `gc.callbacks`."""
        if phase == "start":
            self._began_ns = time.thread_time_ns()
            return
        took_ms = (time.thread_time_ns() - self._began_ns) / 1_000_000
        self._took_ms.append(f"{took_ms:.1f} ms of generation {info['generation']}")

    def forget(self) -> None:
        """Another callback runs."""
        if self._took_ms:
            self._took_ms.clear()

    def __str__(self) -> str:
        """What the collections took, or nothing."""
        return f", collecting {', '.join(self._took_ms)}" if self._took_ms else ""


def _named(handle: Any) -> str:
    """Return what ran: of a task its name, what it is for, and where it stands now."""
    task = getattr(handle._callback, "__self__", None)
    if not isinstance(task, asyncio.Task):
        return repr(handle)
    frames = task.get_stack(limit=1)
    where = f" at {Path(frames[0].f_code.co_filename).name}:{frames[0].f_lineno}" if frames else ""
    return f"{task.get_name()} {getattr(task.get_coro(), '__qualname__', '')}{where}"


if __name__ == "__main__":
    main()
