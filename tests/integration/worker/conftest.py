"""Fixtures of the worker's integration tests."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.integration.worker.kernel_double import KernelDouble


@pytest.fixture
async def kernel() -> AsyncIterator[KernelDouble]:
    """A kernel double that listens."""
    double = KernelDouble()
    await double.start()
    yield double
    await double.stop()


def environment() -> dict[str, str]:
    """Return the environment that worker processes start from: ours, without settings of ours."""
    return {key: value for key, value in os.environ.items() if not key.startswith("STRETTO_")}


class WorkerProcess:
    """A real `python -m stretto_worker`, connected to a kernel double."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    @property
    def pid(self) -> int:
        return self.process.pid

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def wait(self) -> int:
        return await self.process.wait()


@pytest.fixture
async def worker_process(kernel: KernelDouble, tmp_path: Path) -> AsyncIterator[WorkerProcess]:
    """A worker service that said hello; killed afterwards."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "stretto_worker",
        env={
            **environment(),
            "STRETTO_KERNEL_ADDRESS": kernel.address,
            "STRETTO_DATA_DIR": str(tmp_path),
            "STRETTO_STOP_GRACE_S": "1",
            "STRETTO_DRAIN_S": "20",
            "STRETTO_WORKER_LABELS": "zone=a",
        },
    )
    await kernel.seen(lambda each: bool(each.hellos))
    yield WorkerProcess(process)
    if process.returncode is None:
        process.kill()
        await process.wait()
