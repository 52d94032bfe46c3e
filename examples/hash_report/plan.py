"""The plan of the hash report: list the files, hash them in chunks, join, check.

`python plan.py DIR [WATCH_MS] | stretto run -` runs it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from stretto_sdk import Plan

STEPS = Path(__file__).resolve().with_name("steps.py")


def hash_report(
    directory: Path, *, chunk_count: int = 40, watch_ms: int = 0, slot_count: int = 8
) -> Plan:
    """Return the plan.

    watch_ms: how long the chunks take at least in all, with `slot_count` at once: time to watch.
    """
    plan = Plan("hash report", run_timeout="10m")
    where = {"directory": str(directory.resolve())}
    listing = plan.task(
        "list",
        executor="process",
        argv=[sys.executable, str(STEPS), "list"],
        spawn=True,
        output_bytes_max=4 << 20,  # The chunks' paths are in what it prints.
        inputs={
            **where,
            "chunk_count": chunk_count,
            "watch_ms": watch_ms,
            "slot_count": slot_count,
        },
        may_spawn=True,
        retry={"max_attempts": 10},
    )
    report = plan.task(
        "report",
        executor="process",
        argv=[sys.executable, str(STEPS), "report"],
        after=[listing.subtree],
        inputs={**where, "listing": listing.output(), "chunks": listing.subtree_outputs()},
        retry={"max_attempts": 10},
    )
    checked = plan.task(
        "check",
        executor="process",
        argv=[sys.executable, str(STEPS), "check"],
        after=[listing, report],
        inputs={
            **where,
            "chunk_count": chunk_count,
            "listing": listing.output(),
            "report": report.output(),
        },
        retry={"max_attempts": 3},
    )
    plan.output = checked.output()
    return plan


if __name__ == "__main__":
    watch_ms = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    print(json.dumps(hash_report(Path(sys.argv[1]), watch_ms=watch_ms).to_form(), indent=2))
