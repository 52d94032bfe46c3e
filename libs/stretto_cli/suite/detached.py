"""Starts a suite nobody watches, and stops one, from another process than its own.

A suite is signalled only by its pid together with its start time: never by name, never a pid that
was reused.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import TypeVar

from stretto_core.errors import Unavailable
from stretto_core.localstack.status import SuiteStatus

from stretto_cli.suite.composition import SuiteSettings
from stretto_cli.suite.directory import SuiteDirectory
from stretto_cli.suite.host import Watch, all_ready
from stretto_cli.suite.identity import ProcessIdentity

Answer = TypeVar("Answer")

START_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 90.0
_LOOK_S = 0.02


def start_detached(settings: SuiteSettings, watch: Watch) -> SuiteStatus:
    """Start the suite in a session of its own; returns once every process of it is ready.

    Raises Unavailable with the end of its log when it does not come up; nothing then runs.
    """
    directory = settings.directory
    directory.make()
    log_path = directory.log_path("supervisor")
    log_path.parent.mkdir(parents=True, exist_ok=True)
    asked = {
        "directory": str(directory.root),
        "port": settings.port,
        "worker_count": settings.worker_count,
        "slot_count": settings.slot_count,
    }
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "stretto_cli.suite", json.dumps(asked)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=dict(settings.environ),
            start_new_session=True,
        )

    def came_up() -> SuiteStatus | None:
        if process.poll() is not None:
            said = log_path.read_text(errors="replace").strip()
            raise Unavailable(said or f"the suite ended with status {process.returncode}")
        status = directory.status()
        if status is None or status.supervisor_pid != process.pid:
            return None
        watch(status)
        return status if all_ready(status) else None

    status = _await(came_up, START_TIMEOUT_S)
    if status is None:
        process.terminate()
        process.wait()
        raise Unavailable(f"the suite is not ready after {START_TIMEOUT_S:.0f} s; see {log_path}")
    return status


def stop_detached(directory: SuiteDirectory) -> ProcessIdentity | None:
    """Ask the suite of this directory to drain and wait for its end; None when none runs.

    Raises Unavailable when it still runs after 90 s.
    """
    identity = directory.running()
    if identity is None:
        return None
    with contextlib.suppress(ProcessLookupError):  # It ended in this instant.
        os.kill(identity.pid, signal.SIGTERM)
    if _await(lambda: True if not identity.alive else None, STOP_TIMEOUT_S) is None:
        raise Unavailable(
            f"the suite (pid {identity.pid}) has not ended in {STOP_TIMEOUT_S:.0f} s",
            pid=str(identity.pid),
        )
    return identity


def _await(ask: Callable[[], Answer | None], timeout_s: float) -> Answer | None:
    """Return the first answer that is not None, or None when the time is over."""
    deadline_s = time.monotonic() + timeout_s
    while (answer := ask()) is None and time.monotonic() < deadline_s:
        time.sleep(_LOOK_S)
    return answer
