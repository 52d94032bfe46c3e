"""Where the recorded workflows are, what is expected of each, and what any run of one must obey.

They lie beside the checkout in shared/data/workflows, or where STRETTO_TEST_WORKFLOWS says.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stretto_sdk import Event
from stretto_sdk.durations import parse_duration_ns
from stretto_sdk.imports import Imported
from stretto_sdk.imports.document import read_document
from stretto_sdk.imports.github_jobs import plan_of_github_jobs
from stretto_sdk.imports.wfformat import plan_of_wfformat
from stretto_sdk.task_order import ordered

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
    """Return where the workflows are or should be."""
    given = environ.get("STRETTO_TEST_WORKFLOWS")
    return Path(given) if given else BESIDE


def expectations(directory: Path) -> dict[str, Expected]:
    """Return what EXPECTED.tsv says, by file name."""
    with (directory / "wfinstances" / "EXPECTED.tsv").open(newline="") as lines:
        return {
            row.pop("file"): Expected(
                level_sizes=tuple(int(size) for size in row.pop("level_sizes").split(",")),
                sum_runtime_s=float(row.pop("sum_runtime_s")),
                critical_path_s=float(row.pop("critical_path_s")),
                **{name: int(value) for name, value in row.items()},
            )
            for row in csv.DictReader(lines, delimiter="\t")
        }


TRACES = (
    "1000genome-chameleon-2ch-100k-001.json",
    "airrflow-dirt02-001.json",
    "blast-chameleon-small-001.json",
    "bwa-chameleon-large-001.json",
    "cycles-chameleon-1l-1c-9p-001.json",
    "epigenomics-chameleon-hep-1seq-100k-001.json",
    "helloworld-chain-5-chameleon.json",
    "methylseq-dirt02-001.json",
    "montage-chameleon-2mass-005d-001.json",
    "montage-chameleon-2mass-05d-001.json",
    "montage-chameleon-dss-10d-001.json",
    "rnaseq-dirt02-001.json",
    "sarek-dirt02-001.json",
    "seismology-chameleon-500p-001.json",
    "soykb-chameleon-10fastq-10ch-001.json",
    "srasearch-chameleon-10a-001.json",
    "synthetic-epigenomics-5000.json.gz",
)
JOB_GRAPHS = (
    "argoproj--argo-workflows--ci-build.jobs.json",
    "conductor-oss--conductor--ci.jobs.json",
    "langchain-ai--langgraph--release.jobs.json",
)


def imported_trace(directory: Path, name: str, *, time_scale: float) -> Imported:
    """Return a trace as a plan."""
    document = read_document(directory / "wfinstances" / name)
    return plan_of_wfformat(document, time_scale=time_scale, source=name)


def imported_jobs(directory: Path, name: str) -> Imported:
    """Return a job graph as a plan."""
    return plan_of_github_jobs(read_document(directory / "github-actions" / name), source=name)


def dependencies_of(plan: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return what each task of a plan file's form comes after."""
    return {task["name"]: task.get("after", []) for task in plan["tasks"]}


def shape_of(plan: Mapping[str, Any]) -> Expected:
    """Return the figures of a plan's graph, in seconds as its tasks sleep."""
    after = dependencies_of(plan)
    sleeps_s = {
        task["name"]: parse_duration_ns(task["arguments"]["duration"]) / 1e9
        for task in plan["tasks"]
    }
    names = list(after)
    numbers = {name: number for number, name in enumerate(names)}
    order = ordered([[numbers[each] for each in above] for above in after.values()])
    assert len(order) == len(names), "a plan has no cycle"
    levels: dict[str, int] = {}
    ends_s: dict[str, float] = {}
    for name in (names[number] for number in order):
        levels[name] = max((levels[each] + 1 for each in after[name]), default=0)
        ends_s[name] = sleeps_s[name] + max((ends_s[each] for each in after[name]), default=0.0)
    sizes = Counter(levels.values())
    above = {each for edges in after.values() for each in edges}
    return Expected(
        tasks=len(names),
        edges=sum(map(len, after.values())),
        roots=sum(not edges for edges in after.values()),
        sinks=len(names) - len(above),
        depth=len(sizes),
        width=max(sizes.values()),
        sum_runtime_s=round(sum(sleeps_s.values()), 3),
        critical_path_s=round(max(ends_s.values()), 3),
        level_sizes=tuple(sizes[level] for level in sorted(sizes)),
    )


def check_history(after: Mapping[str, list[str]], events: Iterable[Event]) -> None:
    """Each task was leased once and succeeded once, and never before all it comes after."""
    leased: Counter[str] = Counter()
    succeeded: set[str] = set()
    for event in events:
        match event.type.rpartition(".")[2]:
            case "AttemptLeased":
                name = str(event.body["task"])
                leased[name] += 1
                early = [each for each in after[name] if each not in succeeded]
                assert not early, f"version {event.version}: {name} is leased before {early}"
            case "AttemptSucceeded":
                name = str(event.body["task"])
                assert name not in succeeded, f"version {event.version}: {name} again"
                succeeded.add(name)
            case "RunStarted" | "TasksAdded" | "RunSucceeded":
                pass
            case other:
                raise AssertionError(f"version {event.version}: {other}, where all goes well")
    assert leased == Counter(after.keys())
    assert succeeded == set(after)
