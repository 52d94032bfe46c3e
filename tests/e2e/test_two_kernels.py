"""A second kernel on the same partition refuses to start, and the first does not notice."""

from __future__ import annotations

import os
import subprocess
import sys

from stretto_core.eventlog.port import PartitionHeld
from stretto_core.localstack.postgres import EmbeddedPostgres
from stretto_sdk import Plan

from tests.e2e.conftest import Suite, command


async def test_a_second_kernel_refuses_to_start(suite: Suite) -> None:
    dsn = EmbeddedPostgres(directory=suite.directory.postgres_path).dsn()
    second: subprocess.CompletedProcess[str] = command(
        sys.executable,
        "-m",
        "stretto_kernel",
        environ={"PATH": os.environ["PATH"], "STRETTO_POSTGRES_DSN": dsn},
    )
    assert second.returncode == 1
    assert PartitionHeld.reason in second.stdout + second.stderr
    async with suite.client() as client:
        plan = Plan()
        plan.output = plan.task(
            "one", executor="process", argv=["echo", "still here"], output="text"
        ).output()
        assert await client.result(await client.start(plan)) is not None
    assert suite.restarts("kernel") == 0
