"""What processes cost, read from /proc: CPU time of a whole tree, memory of one.

CPU time is user plus system of every process below a root, ended children included, in the
kernel's ticks (10 ms each): measure stretches of a second or more.
"""

from __future__ import annotations

import os
from pathlib import Path

_US_PER_TICK = 1_000_000 // os.sysconf("SC_CLK_TCK")
_KIB_PER_MB = 1_000


def tree_cpu_us(root: int) -> int:
    """Return the CPU time that `root` and everything below it has used, in microseconds."""
    parents: dict[int, int] = {}
    ticks: dict[int, int] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # It ended meanwhile.
        pid = int(entry.parent.name)
        parents[pid] = int(fields[1])
        # user, system, and both of the children that were waited for.
        ticks[pid] = sum(int(field) for field in fields[11:15])
    return sum(used for pid, used in ticks.items() if _is_below(pid, root, parents)) * _US_PER_TICK


def rss_mb(pid: int) -> float:
    """Return the resident memory of one process, in megabytes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1_024 / (_KIB_PER_MB * _KIB_PER_MB)
    raise AssertionError("every process with memory says how much")


def _is_below(pid: int, root: int, parents: dict[int, int]) -> bool:
    while pid:
        if pid == root:
            return True
        pid = parents.get(pid, 0)
    return False
