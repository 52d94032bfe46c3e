"""Which process a pid names: a pid is reused, a pid with its start time and boot is not."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    """One process for all time. started: opaque; only compares."""

    pid: int
    started: str

    @property
    def alive(self) -> bool:
        """Whether this very process still runs."""
        return identity_of(self.pid) == self


def own_identity() -> ProcessIdentity:
    """Return the identity of this process."""
    found = identity_of(os.getpid())
    assert found is not None, "this process runs"
    return found


def identity_of(pid: int) -> ProcessIdentity | None:
    """Return the identity of the process that has this pid now, None when none runs."""
    stat = Path(f"/proc/{pid}/stat")
    if not _BOOT_ID.exists():
        return _identity_by_ps(pid)
    try:
        # The name in parentheses may hold anything; the fields after it are fixed.
        fields = stat.read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    if fields[0] in {"Z", "X"}:
        return None  # Dead, only not yet reaped.
    return ProcessIdentity(pid, f"{_BOOT_ID.read_text().strip()}/{fields[19]}")


def _identity_by_ps(pid: int) -> ProcessIdentity | None:
    found = subprocess.run(
        ["/bin/ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    started = found.stdout.strip()
    return ProcessIdentity(pid, started) if started else None
