"""Which processes live, as /proc says."""

from __future__ import annotations

from pathlib import Path


def is_alive(pid: int) -> bool:
    """Whether a process runs; a zombie has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def pids_in(path: Path) -> list[int]:
    """Return the process ids that bodies wrote into a file, one a line."""
    return [int(line) for line in path.read_text().split()] if path.exists() else []
