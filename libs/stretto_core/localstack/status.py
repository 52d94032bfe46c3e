"""The status file of a supervisor: what each child is doing, for `stretto status` and for tests.

A file, so that it can be read whatever state the suite is in. It holds no secret.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path

from stretto_core.atomic_file import write_atomically


class ChildState(StrEnum):
    """What a supervised child is doing."""

    WAITING = "waiting"  # For the children before it to be ready.
    STARTING = "starting"
    READY = "ready"
    BACKING_OFF = "backing_off"  # Dead; started again after `backoff_ms`.
    STOPPING = "stopping"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class ChildStatus:
    """One child as last seen by its supervisor; `since_ns` is UTC since the Unix epoch."""

    name: str
    state: ChildState
    since_ns: int
    pid: int | None = None
    restart_count: int = 0
    exit_status_last: int | None = None
    backoff_ms: int = 0
    log_path: str = ""


@dataclass(frozen=True, slots=True)
class SuiteStatus:
    """All children of one supervisor, in the order they start."""

    supervisor_pid: int
    children: tuple[ChildStatus, ...]

    def child(self, name: str) -> ChildStatus:
        """Return the status of a child; raises KeyError for an unknown name."""
        for status in self.children:
            if status.name == name:
                return status
        raise KeyError(name)


def write_status(path: Path, status: SuiteStatus) -> None:
    """Replace the status file."""
    write_atomically(path, json.dumps(asdict(status), indent=1).encode(), durable=False)


def read_status(path: Path) -> SuiteStatus | None:
    """Return what the file says, None without one; whether its writer lives is not checked."""
    try:
        parsed = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    children = tuple(
        ChildStatus(**{**child, "state": ChildState(child["state"])})
        for child in parsed["children"]
    )
    return SuiteStatus(parsed["supervisor_pid"], children)
