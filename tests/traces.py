"""Where the recorded workflows are, and what is expected of each.

They lie beside the checkout in shared/data/workflows, or where STRETTO_TEST_WORKFLOWS says.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

BESIDE = Path(__file__).parents[2] / "shared" / "data" / "workflows"


@dataclass(frozen=True, slots=True)
class Expected:
    """What EXPECTED.tsv says of a trace."""

    tasks: int
    edges: int
    roots: int
    sinks: int
    depth: int
    width: int
    sum_runtime_s: float
    critical_path_s: float
    level_sizes: tuple[int, ...]


def directory_of(environ: Mapping[str, str]) -> Path:
    """Return where the workflows should be."""
    given = environ.get("STRETTO_TEST_WORKFLOWS")
    return Path(given) if given else BESIDE


def expectations(directory: Path) -> dict[str, Expected]:
    """Return what is expected, by file name; {} where the data is missing."""
    table = directory / "wfinstances" / "EXPECTED.tsv"
    if not table.is_file():
        return {}
    with table.open(newline="") as lines:
        return {
            row.pop("file"): Expected(
                level_sizes=tuple(int(size) for size in row.pop("level_sizes").split(",")),
                sum_runtime_s=float(row.pop("sum_runtime_s")),
                critical_path_s=float(row.pop("critical_path_s")),
                **{name: int(value) for name, value in row.items()},
            )
            for row in csv.DictReader(lines, delimiter="\t")
        }
