"""Which worker a process is, when nobody says: the first free identity of the data directory.

`workers/worker-N.id` holds an id for good; whoever has its lock is that worker. The lock ends with
the process, so a restart takes the same identity again: a takeover, not a stranger, and a second
process takes the next.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import socket
from dataclasses import dataclass
from pathlib import Path

from stretto_core.errors import Exhausted

WORKERS_DIRECTORY = "workers"
IDENTITY_COUNT_MAX = 1_000


class NoIdentityLeft(Exhausted):
    """Every identity of the data directory is in use."""

    reason = "NO_IDENTITY_LEFT"


@dataclass(frozen=True, slots=True)
class WorkerIdentity:
    """A worker id, and the descriptor whose lock makes it ours; None when it was given."""

    worker_id: str
    lock_fd: int | None = None

    def release(self) -> None:
        """Let the next process have it."""
        if self.lock_fd is not None:
            os.close(self.lock_fd)


def claim_identity(directory: Path) -> WorkerIdentity:
    """Return the first identity of `directory` that no living process has. Raises NoIdentityLeft.

    Its descriptor is not inherited by child processes: a body that outlives us holds no lock.
    """
    home = directory / WORKERS_DIRECTORY
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    for number in range(1, IDENTITY_COUNT_MAX + 1):
        descriptor = os.open(home / f"worker-{number}.id", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            continue
        return WorkerIdentity(_read_or_make(descriptor, number), descriptor)
    raise NoIdentityLeft("every worker identity is in use", directory=str(home))


def _read_or_make(descriptor: int, number: int) -> str:
    """Return the id in a locked file; one that a crash left empty is made anew."""
    found = os.pread(descriptor, 256, 0).decode(errors="replace").strip()
    if found.isprintable() and 0 < len(found) <= 128:
        return found
    host = re.sub(r"[^A-Za-z0-9.-]", "-", socket.gethostname())[:64]
    made = f"{host}-worker-{number}-{secrets.token_hex(4)}"
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{made}\n".encode(), 0)
    os.fsync(descriptor)
    return made
