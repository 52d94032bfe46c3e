"""The bench at toy sizes: every workload runs and prints its figures. None of them is judged."""

from __future__ import annotations

import json
import os
import sys
from collections import defaultdict

import pytest

from tests.bench.__main__ import GROUPS, LATER
from tests.bench.figures import UNITS
from tests.e2e.conftest import command

KEYS = ["workload", "metric", "unit", "median", "min", "max", "runs", "settings", "versions"]
KILLED = {"all_done_s", "lost", "accepted_twice", "ended_twice"}
METRICS = {
    "W1-unary": {"tasks_per_s", "caught_up_tasks_per_s", "cpu_us_per_task"},
    "W2": {"p50_ms", "p99_ms"},
    "W3-fan": {"wall_s"},
    "W3-chain": {"ms_per_task"},
    "W4-worker": KILLED,
    "W4-kernel": KILLED | {"serving_s"},
    "W4-postgres": KILLED,
    "append": {"events_per_s"},
    "fold": {"events_per_s"},
    "size-100000": {"cpu_us_per_task"},
    "queued-1000000": {"cpu_us_per_task", "p99_ms", "rss_mb", "bytes_per_task"},
    "ended": {"rss_mb", "bytes_per_task"},
    "overload-2x": {"tasks_per_s", "refused", "cpu_us_per_task", "p99_ms"},
    "relay": {"events_per_s"},
    "idle": {"sql_per_s", "cpu_percent", "rss_mb"},
    "startup": {"serving_s", "wall_s"},
    "loop": {"stretch_ms"},
    "ground-calls-64": {"calls_per_s"},
    "ground-codec": {"encode_us", "decode_us"},
    "ground-inserts-8": {"inserts_per_s"},
}


@pytest.mark.parametrize("names", list(GROUPS), ids=lambda names: names[0])
def test_every_workload_prints_its_figures(names: tuple[str, ...]) -> None:
    result = command(
        *(sys.executable, "-m", "tests.bench", "--toy", "--only", ",".join(names)),
        environ=dict(os.environ),
    )
    assert result.returncode == 0, result.stderr
    figures = [json.loads(line) for line in result.stdout.splitlines()]
    assert all(list(figure) == KEYS for figure in figures)
    assert all(UNITS[figure["metric"]] == figure["unit"] for figure in figures)
    assert all(figure["min"] <= figure["median"] <= figure["max"] for figure in figures)
    found = defaultdict(set)
    for figure in figures:
        found[figure["workload"]].add(figure["metric"])
    assert set(found) == set(names)
    assert all(found[name] == METRICS[name] for name in found if name in METRICS)
    for figure in figures:
        if figure["metric"] in {"lost", "accepted_twice"}:
            assert figure["max"] == 0, figure
    assert all(name in result.stderr for name in LATER), "it says what it leaves out"


def test_an_unknown_workload_is_named() -> None:
    result = command(
        sys.executable, "-m", "tests.bench", "--only", "W1,W9", environ=dict(os.environ)
    )
    assert result.returncode == 2
    assert "'W9'" in result.stderr and "W1-unary" in result.stderr


def test_peers_go_beside_ours_and_one_without_its_server_is_left_out() -> None:
    result = command(
        *(sys.executable, "-m", "tests.bench.peers", "--python", sys.executable),
        *("--toy", "--only", "restate,stretto"),
        environ=dict(os.environ),
    )
    assert result.returncode == 0, result.stderr
    assert "restate: left out: no npm package @restatedev/restate-server" in result.stderr
    figures = [json.loads(line) for line in result.stdout.splitlines()]
    assert {figure["settings"]["system"] for figure in figures} == {"stretto"}
    assert {figure["workload"]: figure["metric"] for figure in figures} == {
        "W1-unary": "tasks_per_s",
        "W2": "p99_ms",
        "W3-fan": "wall_s",
        "W3-chain": "ms_per_task",
    }
    assert "| stretto here " in result.stderr.splitlines()[-1]
