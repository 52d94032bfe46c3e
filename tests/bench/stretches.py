"""The kernel with a stopwatch on its loop: `python -m tests.bench.stretches FILE`.

Runs the kernel on asyncio's own loop, whose callbacks can be timed, and writes the longest ones to
FILE when it ends, in milliseconds of the thread's CPU time: a busy machine does not show. Nothing
of this is in the kernel itself.
"""

from __future__ import annotations

import asyncio
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

    def timed(handle: Any) -> None:
        began_ns = time.thread_time_ns()
        plain(handle)
        took_ms = (time.thread_time_ns() - began_ns) / 1_000_000
        if len(longest) < KEPT:
            heapq.heappush(longest, (took_ms, _named(handle)))
        elif took_ms > longest[0][0]:
            heapq.heapreplace(longest, (took_ms, _named(handle)))

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
