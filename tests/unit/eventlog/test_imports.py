"""Importing the log's rules loads no driver and no loop: the core stays quick to start."""

from __future__ import annotations

import subprocess
import sys

MODULES = "recorded codec chain digests port writer faults"


def test_the_rules_load_no_adapter() -> None:
    imports = "; ".join(f"import stretto_core.eventlog.{name}" for name in MODULES.split())
    heavy = "{'psycopg', 'psycopg_pool', 'eventsourcing', 'asyncio', 'grpc', 'structlog'}"
    program = f"import sys; {imports}; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
