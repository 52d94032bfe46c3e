"""The table of peers for docs/benchmarks.md: medians, and how ours compares in the same rounds."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from tests.bench.figures import Round

HEAD = (
    "| | W1 tasks/s | ours / it | W2 p50 / p99 ms | ours / it, p50 | fan s | chain ms a task |",
    "| --- | --- | --- | --- | --- | --- | --- |",
)
METRICS = ("tasks_per_s", "p50_ms", "p99_ms", "wall_s", "ms_per_task")
_NOTHING = "-"


def table(measured: Mapping[str, Sequence[Round]], ours: str) -> list[str]:
    """Return the lines: a row for each label of `measured`; `ours` is the label of ours.

    A ratio is the median over the rounds that both have, each compared with the same round.
    """
    return [*HEAD, *(_row(label, measured[label], measured.get(ours, ())) for label in measured)]


def _row(label: str, rounds: Sequence[Round], ours: Sequence[Round]) -> str:
    rate, p50, p99, fan, chain = ([each[m] for each in rounds if m in each] for m in METRICS)
    cells = [
        f"{statistics.median(rate):,.0f} ({min(rate):,.0f}-{max(rate):,.0f})",
        _ratio("tasks_per_s", rounds, ours),
        f"{statistics.median(p50):.1f} / {statistics.median(p99):.1f}",
        _ratio("p50_ms", rounds, ours),
        f"{statistics.median(fan):.2f}" if fan else _NOTHING,
        f"{statistics.median(chain):.1f}" if chain else _NOTHING,
    ]
    return f"| {label} | {' | '.join(cells)} |"


def _ratio(metric: str, rounds: Sequence[Round], ours: Sequence[Round]) -> str:
    pairs = [own[metric] / each[metric] for each, own in zip(rounds, ours, strict=False)]
    if rounds is ours or not pairs:
        return _NOTHING
    return f"{statistics.median(pairs):.2f} ({min(pairs):.2f}-{max(pairs):.2f})"
