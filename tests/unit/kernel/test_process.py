"""The kernel's process: what its start loads, and what it tells of itself."""

from __future__ import annotations

import socket
import subprocess
import sys

from stretto_core.telemetry.exposition import render
from stretto_core.telemetry.metrics import Registry
from stretto_kernel.__main__ import _serve_metrics
from stretto_kernel.kernel_metrics import add_metrics
from stretto_kernel.settings import Settings
from structlog.testing import capture_logs

from tests.unit.kernel.harness import FrameWorker, new_store, start, start_kernel
from tests.waiting import until

LOADED_LATER = (
    "cryptography",
    "grpc_reflection.v1alpha",
    "hypothesis",
    "jsonschema_rs",
    "nats",
    "opentelemetry",
    "pytest",
    "rich",
    "stretto_core.telemetry.exposition",
    "stretto_core.testing",
)


def test_the_start_loads_nothing_that_can_wait() -> None:
    script = "import sys, stretto_kernel.__main__; print('\\n'.join(sys.modules))"
    loaded = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True
    ).stdout.split()
    assert "stretto_kernel.kernel" in loaded
    found = [name for name in loaded for late in LOADED_LATER if f"{name}.".startswith(f"{late}.")]
    assert not found


async def test_metrics_show_how_the_kernel_stands() -> None:
    kernel = await start_kernel(new_store())
    registry = Registry()
    add_metrics(registry, kernel)
    worker = FrameWorker(kernel)
    await start(kernel)
    await until(lambda: len(worker.assignments) == 1)
    shown = render(registry).splitlines()
    assert "stretto_kernel_leases_open 1" in shown
    assert "stretto_kernel_recovery_streams_left 0" in shown
    await kernel.stop()
    assert "stretto_kernel_leases_open 0" in render(registry).splitlines()


async def test_a_metrics_port_that_is_taken_costs_the_figures_and_not_the_kernel() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        settings = Settings.from_env(
            {
                "STRETTO_POSTGRES_DSN": "postgresql://x",
                "STRETTO_METRICS_LISTEN": f"127.0.0.1:{taken.getsockname()[1]}",
            }
        )
        with capture_logs() as logs:
            assert await _serve_metrics(settings, Registry()) is None
    assert [each["event"] for each in logs] == ["metrics.not_served"]
