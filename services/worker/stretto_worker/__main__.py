"""The worker service: `python -m stretto_worker` runs tasks of its executors until drained.

The only reader of the environment and the only constructor of adapters. Exit status: 0 drained,
1 refused by the kernel or broken, 2 wrong settings, 4 a newer process of this worker took over.
"""

from __future__ import annotations

from stretto_core.lean_start import imports_done  # First: it makes the others cheaper.

# isort: split
import asyncio
import os
import signal
import sys
from collections.abc import Coroutine
from typing import Any

import structlog
from stretto_core.clock.system import SystemClock
from stretto_core.errors import Refusal
from stretto_core.ids.system import SystemIds
from stretto_core.rpc.tokens import TokenFile, TokenRefused
from stretto_core.telemetry.logs import configure_logs
from stretto_sdk.worker.bodies import BodyThread
from stretto_sdk.worker.functions import FunctionTable
from stretto_sdk.worker.identity import WorkerIdentity, claim_identity
from stretto_sdk.worker.process import WorkerSettings, run_worker
from stretto_sdk.worker.python_executor import PythonExecutor
from stretto_sdk.worker.runtime import DrainLimits, Ended
from stretto_sdk.worker.sleep_executor import SleepExecutor

from stretto_worker.http.executor import HttpExecutor, HttpSettings
from stretto_worker.processes.executor import ProcessExecutor, ProcessLimits
from stretto_worker.processes.reaper_client import ReaperClient
from stretto_worker.secret_store import SecretStore
from stretto_worker.settings import Settings, SettingsError


async def serve(settings: Settings) -> Ended:
    """Work until drained or replaced."""
    clock, ids = SystemClock(), SystemIds()
    named = WorkerIdentity(settings.worker_name) if settings.worker_name else None
    identity = named or claim_identity(settings.data_directory)
    # Nothing of ours, the token least of all, is inherited by a command.
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("STRETTO_")}
    secrets = SecretStore(settings.secrets_path, settings.secrets)
    processes = ProcessExecutor(
        ReaperClient(inherited),
        find_secret=secrets.find,
        clock=clock,
        ids=ids,
        limits=ProcessLimits(stop_grace_s=settings.stop_grace_s),
    )
    functions = PythonExecutor(
        FunctionTable(importable=True),
        bodies=BodyThread(),
        slot_count=settings.slot_count,
        clock=clock,
        ids=ids,
    )
    requests = HttpExecutor(
        HttpSettings(rules=settings.http_rules, authorities=settings.http_authorities),
        find_secret=secrets.find,
        clock=clock,
    )
    loop = asyncio.get_running_loop()
    tokens = TokenFile(settings.tokens_directory, loop.time) if settings.tokens_directory else None
    return await run_worker(
        WorkerSettings(
            address=settings.kernel_address,
            worker_id=identity.worker_id,
            queues=settings.queues,
            labels=settings.labels,
            slot_count=settings.slot_count,
            token=settings.token,
            tokens=tokens,
            drain_limits=DrainLimits(finish_s=settings.drain_finish_s),
        ),
        {"http": requests, "process": processes, "python": functions, "sleep": SleepExecutor()},
        clock=clock,
        ids=ids,
    )


def main() -> int:
    """Run the service and return its exit status."""
    imports_done()
    try:
        settings = Settings.from_env(os.environ)
    except (SettingsError, TokenRefused) as error:
        sys.stderr.write(f"stretto_worker: {error}\n")
        return 2
    configure_logs(service="worker", level=settings.log_level)
    try:
        return _run(serve(settings)).value
    except Refusal as refusal:
        log = structlog.get_logger("stretto.worker")
        log.error("worker.refused", reason=refusal.reason_word, detail=refusal.message)
        return 1


def _run(work: Coroutine[Any, Any, Ended]) -> Ended:
    try:
        import uvloop  # noqa: PLC0415
    except ImportError:
        return asyncio.run(work)
    return uvloop.run(work)


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    status = main()
    sys.stderr.flush()
    # Not `sys.exit`, which waits for threads: a body in `asyncio.to_thread` may block one for ever.
    os._exit(status)
