"""WfFormat documents as plans: the graph, the names, the spans, and every mistake at once."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from stretto_core.errors import InvalidArgument
from stretto_sdk.imports.document import DOCUMENT_BYTES_MAX, read_document
from stretto_sdk.imports.wfformat import plan_of_wfformat
from stretto_sdk.plan_form import parse_run


def document(*tasks: dict[str, Any], runtimes: Any = None, version: str = "1.5") -> dict[str, Any]:
    workflow: dict[str, Any] = {"specification": {"tasks": list(tasks)}}
    if runtimes is not None:
        workflow["execution"] = {
            "tasks": [{"id": key, "runtimeInSeconds": value} for key, value in runtimes.items()]
        }
    return {"name": "trace", "schemaVersion": version, "workflow": workflow}


def task(name: str, *parents: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "id": name, "parents": list(parents), **more}


def mistakes_of(value: object, **options: Any) -> dict[str, str]:
    with pytest.raises(InvalidArgument) as refused:
        plan_of_wfformat(value, **options)
    return {each.field: each.description for each in refused.value.violations}


@pytest.mark.parametrize("version", ["1.5", "1.6"])
def test_tasks_sleep_for_their_runtime_after_their_parents(version: str) -> None:
    trace = document(
        task("a", children=["b"]),
        task("b", "a", children=[]),
        runtimes={"a": 1.5, "b": 0.000_001},
        version=version,
    )
    imported = plan_of_wfformat(trace, time_scale=0.5)
    assert imported.plan == {
        "name": "trace",
        "tasks": [
            {"name": "a", "executor": "sleep", "arguments": {"duration": "0.75s"}},
            {
                "name": "b",
                "executor": "sleep",
                "arguments": {"duration": "0.0000005s"},
                "after": ["a"],
            },
        ],
    }
    assert parse_run(imported.plan).graph.tasks[1].dependencies[0].task == "a"


def test_without_scale_nothing_sleeps() -> None:
    imported = plan_of_wfformat(document(task("a"), runtimes={"a": 9}), time_scale=0)
    assert imported.plan["tasks"] == [
        {"name": "a", "executor": "sleep", "arguments": {"duration": "0s"}}
    ]


def test_a_task_without_a_runtime_takes_no_time_and_that_is_said() -> None:
    trace = document(task("a"), task("b"), task("c"), runtimes={"a": 1, "b": None})
    imported = plan_of_wfformat(trace)
    spans = [each["arguments"]["duration"] for each in imported.plan["tasks"]]  # type: ignore[attr-defined]
    assert spans == ["1s", "0s", "0s"]
    assert list(imported.remarks) == ["2 of 3 tasks have no runtime: they take no time"]


def test_ids_become_names_and_stay_apart() -> None:
    long = "x" * 200
    ids = ["a b", "a_b", "a/b", "a.b-c_d#1", long, f"{long}y", "é"]
    imported = plan_of_wfformat(document(*map(task, ids), task("end", *ids)))
    names = [each["name"] for each in imported.plan["tasks"]]  # type: ignore[attr-defined]
    assert names == [
        "a_b#2",  # The second id is a name already and keeps it.
        "a_b",
        "a_b#3",
        "a.b-c_d#1",
        "x" * 128,
        "x" * 126 + "#2",
        "_",
        "end",
    ]
    assert imported.plan["tasks"][-1]["after"] == names[:-1]  # type: ignore[index]
    assert list(imported.remarks)[1] == "5 ids are no task names and were rewritten"


def test_every_mistake_is_named_at_once() -> None:
    trace = document(
        task("a", "a"),
        task("b", "d", "c", "c"),
        task("c", "b"),
        task("c"),
        {"name": "no id", "parents": [7]},
        "no task",  # type: ignore[arg-type]
        task("e", children=["a", "f"]),
        runtimes={"a": -1, "b": "long", "x": 1},
    )
    trace["workflow"]["execution"]["tasks"].append({"id": "a", "runtimeInSeconds": 1})
    trace["schemaVersion"] = "1.4"
    at, ran = "workflow.specification.tasks", "workflow.execution.tasks"
    assert mistakes_of(trace) == {
        "schemaVersion": "must be 1.5 or 1.6, not '1.4'",
        f"{at}[0].parents[0]": "a task cannot be its own parent",
        f"{at}[1].parents[0]": "no task has the id 'd'",
        f"{at}[1].parents[2]": "'c' is there twice",
        f"{at}[3].id": f"'c' is there twice, first as {at}[2]",
        f"{at}[4].id": "is required",
        f"{at}[4].parents[0]": "must be a string, not a number",
        f"{at}[5]": "must be an object, not a string",
        f"{at}[6].children[0]": "'a' does not name 'e' among its parents",
        f"{at}[6].children[1]": "no task has the id 'f'",
        f"{ran}[0].runtimeInSeconds": "must be a number >= 0, not -1.0",
        f"{ran}[1].runtimeInSeconds": "must be a number, not a string",
        f"{ran}[2].id": f"no task of {at} has the id 'x'",
        f"{ran}[3].id": "'a' is there twice",
        at: "the parents form a cycle: b -> c -> b",
    }


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ([], "(the whole)"),
        ({"schemaVersion": "1.5"}, "workflow"),
        ({"schemaVersion": "1.5", "workflow": {}}, "workflow.specification"),
        (document(), "workflow.specification.tasks"),
        ({**document(task("a")), "schemaVersion": 1.5}, "schemaVersion"),
    ],
)
def test_what_is_no_wfformat_is_refused(value: object, path: str) -> None:
    assert path in mistakes_of(value)


@pytest.mark.parametrize("scale", [-1.0, float("nan"), float("inf")])
def test_a_scale_is_a_number_from_0(scale: float) -> None:
    assert mistakes_of(document(task("a")), time_scale=scale) == {
        "time_scale": "must be a number >= 0"
    }


def test_a_sleep_beyond_what_a_span_can_say_is_refused() -> None:
    trace = document(task("a"), runtimes={"a": 1e9})
    assert "scale the time down" in mistakes_of(trace)["workflow.specification.tasks[0]"]
    assert plan_of_wfformat(trace, time_scale=1e-9).plan["tasks"]


def test_a_document_is_read_packed_or_not(tmp_path: Path) -> None:
    text = json.dumps(document(task("a"))).encode()
    for name, stored in [("a.json", text), ("a.json.gz", gzip.compress(text, mtime=0))]:
        (tmp_path / name).write_bytes(stored)
        assert read_document(tmp_path / name) == json.loads(text)


@pytest.mark.parametrize(
    ("stored", "says"),
    [
        (gzip.compress(b'{"a": 1}', mtime=0)[:-4], "not a whole gzip file"),
        (b"\x1f\x8bnonsense", "not a whole gzip file"),
        (gzip.compress(b" " * (DOCUMENT_BYTES_MAX + 1), mtime=0), "more than 128 MiB"),
        (b'{"a": NaN}', "NaN is no JSON number"),
        (b'{"a": 1, "a": 2}', "stands twice"),
        (b"\xff", "is not UTF-8"),
        (b"", "is not JSON"),
    ],
)
def test_a_broken_document_is_refused(tmp_path: Path, stored: bytes, says: str) -> None:
    path = tmp_path / "trace.json"
    path.write_bytes(stored)
    with pytest.raises(InvalidArgument, match=says):
        read_document(path)
