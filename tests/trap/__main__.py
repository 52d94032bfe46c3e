"""python -m tests.trap: springs the delayed-commit trap on a log of its own; prints all counts.

--events N (1,000,000), --writers N (32), --seed N. How far everybody is goes to stderr. Ends with 1
when any subscriber has lost, repeated or reordered an event.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from stretto_core.localstack.nats import EmbeddedNats
from stretto_core.localstack.postgres import FAST, EmbeddedPostgres

from tests.ports import free_port
from tests.trap.trap import Sprung, spring

DEADLINE_S = 1_800.0


async def run(event_count: int, writer_count: int, seed: int) -> Sprung:
    """Spring the trap on servers of its own."""
    directory = Path(tempfile.mkdtemp(prefix="stretto-trap-"))
    directory.chmod(0o711)  # The account that PostgreSQL runs as passes through it.
    postgres = EmbeddedPostgres(directory=directory / "postgres")
    nats = EmbeddedNats(directory=directory / "nats", port=free_port())
    try:
        await postgres.start()
        await nats.start()
        return await spring(
            postgres.dsn(),
            nats.url(),
            event_count=event_count,
            writer_count=writer_count,
            seed=seed,
            deadline_s=DEADLINE_S,
            tell=lambda line: print(line, file=sys.stderr),  # noqa: T201 - progress
        )
    finally:
        await nats.stop()
        await postgres.stop(FAST)
        shutil.rmtree(directory, ignore_errors=True)


def main() -> None:
    """Print what came of it."""
    parser = argparse.ArgumentParser(prog="tests.trap", description=__doc__)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--writers", type=int, default=32)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    sprung = asyncio.run(run(arguments.events, arguments.writers, arguments.seed))
    print(json.dumps(asdict(sprung), indent=2))  # noqa: T201 - the figures are the purpose
    sys.exit(1 if sprung.faults else 0)


if __name__ == "__main__":
    main()
