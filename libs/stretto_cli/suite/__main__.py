"""`python -m stretto_cli.suite SETTINGS`: the detached process behind `stretto up --detach`.

SETTINGS is JSON: directory, port, worker_count, slot_count. The DSN of a foreign PostgreSQL comes
by the environment, since an argument can be read by everyone on the machine.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

from stretto_core.errors import Refusal

from stretto_cli.suite.composition import SuiteSettings
from stretto_cli.suite.directory import SuiteDirectory
from stretto_cli.suite.host import run_suite


def main() -> int:
    """Run the suite until it is asked to stop; the exit status says whether it came up."""
    asked = json.loads(sys.argv[1])
    settings = SuiteSettings(
        directory=SuiteDirectory(Path(asked["directory"])),
        port=asked["port"],
        worker_count=asked["worker_count"],
        slot_count=asked["slot_count"],
        postgres_dsn=os.environ.get("STRETTO_POSTGRES_DSN") or None,
        nats_url=os.environ.get("STRETTO_NATS_URL") or None,
        environ=os.environ,
    )
    try:
        asyncio.run(run_suite(settings))
    except Refusal as refusal:
        print(refusal.message, file=sys.stderr)  # noqa: T201 - read by the parent, from our log
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
