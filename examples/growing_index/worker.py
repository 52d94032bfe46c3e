"""worker.py: indexes directories, a file at a time, and says how far it is.

A frozen or killed worker loses nothing but its last file: the next attempt finds in `last_details`
what the one before said in its last heartbeat, and goes on there.

    python examples/growing_index/worker.py
"""

from __future__ import annotations

import os
from pathlib import Path

from stretto_sdk import SyncTaskContext, Worker

worker = Worker(queues=["index"])


@worker.task
def scan(ctx: SyncTaskContext, directory: str) -> list[str]:
    """Return the directories that hold files, below a directory and itself."""
    found = [parent for parent, _, files in os.walk(directory) if files]
    return sorted(each for each in found if "__pycache__" not in each)


@worker.task
def index(ctx: SyncTaskContext, directory: str) -> dict[str, int]:
    """Return the bytes of each file of a directory."""
    files = sorted(path for path in Path(directory).iterdir() if path.is_file())
    sizes = dict(ctx.last_details or {})
    for path in files:
        if path.name not in sizes:
            sizes[path.name] = path.stat().st_size
            ctx.heartbeat(sizes)
    return sizes


@worker.task
def merge(ctx: SyncTaskContext, **indexed: dict[str, int]) -> dict[str, int]:
    """Return how many files and bytes there are in all."""
    sizes = [size for each in indexed.values() for size in each.values()]
    return {"directories": len(indexed), "files": len(sizes), "bytes": sum(sizes)}


if __name__ == "__main__":
    worker.run()
