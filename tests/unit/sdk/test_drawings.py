"""Drawings: their text to the letter, their grammar line by line, and calm on large graphs."""

from __future__ import annotations

import re

import pytest
from stretto.run.v1 import plan_pb2 as pb
from stretto_sdk.drawings.dot import dot
from stretto_sdk.drawings.drawing import (
    ARROWS_MAX,
    BOXES_MAX,
    Arrow,
    Drawing,
    drawing_of_plan,
    drawing_of_run,
)
from stretto_sdk.drawings.mermaid import mermaid
from stretto_sdk.plan_form import parse_tasks
from stretto_sdk.runs import Task, TaskState

PLAN = [
    {"name": "list", "executor": "process", "may_spawn": True},
    {"name": "sum#1", "executor": "python", "after": [{"task": "list", "scope": "subtree"}]},
    {"name": "check", "executor": "acme.check", "after": ["list", "sum#1"]},
    {"name": "sweep", "executor": "process", "clean_up": True},
]
HOSTILE = 'a"b]--><br/>;#<script>\\ end\n`{|}ü'

MERMAID_LINE = re.compile(
    r"""---|title:\ "(?:[^"\\]|\\.)*"|flowchart\ TD
    |\s+t\d+(?:\[\[|\(\[|\[)"(?:[^"`\[\]{}|<>;]|<br/>|\#\d+;)*"(?:\]\]|\]\)|\])(?::::[a-z]+)?
    |\s+subgraph\ t\d+below\["(?:[^"`\[\]{}|<>;]|\#\d+;)*"\]|\s+end
    |\s+t\d+\ (?:-->|==>)\ t\d+|\s+t\d+\ -\.->\ t\d+below
    |\s+note\d+>"(?:[^"\#]|\#\d+;)*"\]
    |\s+classDef\ [a-z]+\ fill:\#[0-9a-f]{6},stroke:\#[0-9a-f]{6},color:\#[0-9a-f]{6}""",
    re.VERBOSE,
)
DOT_TEXT = r'"(?:[^"\\\n]|\\.)*"'
DOT_LOOKS = rf"\[\w+=(?:\w+|{DOT_TEXT})(?:,\ \w+=(?:\w+|{DOT_TEXT}))*\]"
DOT_LINE = re.compile(
    rf"""digraph\ stretto\ \{{|\s*\}}|\s+rankdir=TB;|\s+style=dashed;|\s+label={DOT_TEXT};
    |\s+(?:node|t\d+)\ {DOT_LOOKS};|\s+t\d+\ ->\ t\d+(?:\ {DOT_LOOKS})?;
    |\s+subgraph\ cluster_t\d+\ \{{""",
    re.VERBOSE,
)


def task(name: str, state: str = "SUCCEEDED", *after: str, **more: object) -> Task:
    return Task(
        name=name,
        state=TaskState(state),
        executor="process",
        dependencies=after,
        **more,  # type: ignore[arg-type]
    )


def grammatical(drawing: Drawing) -> None:
    """Every line is one that the grammar has, and what opens is closed."""
    for text, line_of in ((mermaid(drawing), MERMAID_LINE), (dot(drawing), DOT_LINE)):
        for line in text.splitlines():
            assert line_of.fullmatch(line), line
    flowchart = mermaid(drawing).splitlines()
    opened = sum(line.strip().startswith("subgraph ") for line in flowchart)
    assert opened == sum(line.strip() == "end" for line in flowchart)
    graph = dot(drawing)
    bare = re.sub(DOT_TEXT, "", graph)
    assert bare.count("{") == bare.count("}")


def test_a_plan_as_mermaid() -> None:
    assert (
        mermaid(drawing_of_plan("nightly", parse_tasks(PLAN)))
        == """\
---
title: "nightly"
---
flowchart TD
  t0["list<br/>process"]
  t1["sum#35;1<br/>python"]
  t2["check<br/>acme.check"]
  t3(["sweep<br/>process"])
  t0 ==> t1
  t0 --> t2
  t1 --> t2
"""
    )


def test_a_plan_as_dot() -> None:
    assert (
        dot(drawing_of_plan("nightly", parse_tasks(PLAN)))
        == """\
digraph stretto {
  rankdir=TB;
  node [shape=box, style="rounded,filled", fillcolor="#ffffff", fontname="sans-serif"];
  label="nightly";
  t0 [label="list\\nprocess"];
  t1 [label="sum#1\\npython"];
  t2 [label="check\\nacme.check"];
  t3 [label="sweep\\nprocess", shape=ellipse];
  t0 -> t1 [style=bold, label="subtree"];
  t0 -> t2;
  t1 -> t2;
}
"""
    )


RUN = [
    task("list"),
    task("sum", "RUNNING", "list", subtree_dependencies=("list",), attempt=2),
    task("list/a", spawner="list"),
    task("list/b", "FAILED", "list/a", spawner="list"),
    task("list/a/x", "SKIPPED", spawner="list/a"),
]


def test_a_run_as_mermaid_with_states_and_what_was_spawned_below_its_spawner() -> None:
    assert (
        mermaid(drawing_of_run("", RUN))
        == """\
flowchart TD
  t0["list<br/>process"]:::succeeded
  subgraph t0below["spawned by list"]
    t2["list/a<br/>process"]:::succeeded
    subgraph t2below["spawned by list/a"]
      t4["list/a/x<br/>process"]:::skipped
    end
    t2 -.-> t2below
    t3["list/b<br/>process"]:::failed
  end
  t0 -.-> t0below
  t1["sum<br/>process, attempt 2"]:::running
  t0 ==> t1
  t2 --> t3
  classDef succeeded fill:#d3f5dc,stroke:#1a7f37,color:#1f2328
  classDef failed fill:#ffd8d3,stroke:#cf222e,color:#1f2328
  classDef running fill:#d6ebff,stroke:#0969da,color:#1f2328
  classDef skipped fill:#f2f3f5,stroke:#8c959f,color:#6e7781
"""
    )


def test_a_run_as_dot_with_states_and_what_was_spawned_below_its_spawner() -> None:
    graph = dot(drawing_of_run("", RUN))
    assert 't3 [label="list/b\\nprocess", fillcolor="#ffd8d3", tooltip="FAILED"];' in graph
    assert "subgraph cluster_t0 {" in graph
    assert "t2 -> t4 [style=dotted];" in graph
    assert 't0 -> t1 [style=bold, label="subtree"];' in graph


@pytest.mark.parametrize("state", list(TaskState))
def test_every_state_has_a_colour(state: TaskState) -> None:
    drawing = drawing_of_run("x", [task("a", state.value)])
    assert f"classDef {state.value.lower()} " in mermaid(drawing)
    assert f'tooltip="{state.value}"' in dot(drawing)
    grammatical(drawing)


def test_names_cannot_leave_their_quotes() -> None:
    specs = [pb.TaskSpec(name=HOSTILE, executor=HOSTILE), pb.TaskSpec(name="]\x00\x1b[31m")]
    grammatical(drawing_of_plan(HOSTILE, specs))
    grammatical(
        drawing_of_run(HOSTILE, [task(HOSTILE), task("x", "FAILED", HOSTILE, spawner=HOSTILE)])
    )
    assert "<script>" not in mermaid(drawing_of_plan("", specs))
    assert mermaid(drawing_of_plan("", [])) == "flowchart TD\n"


def test_what_was_spawned_by_the_thousand_is_one_box_with_its_states() -> None:
    tasks = [task("list"), task("sum", "PENDING", "list", subtree_dependencies=("list",))]
    tasks += [
        task(f"list/c{n:04d}", "SUCCEEDED" if n < 990 else "RUNNING", spawner="list")
        for n in range(1_000)
    ]
    drawing = drawing_of_run("", tasks)
    assert [(box.name, box.detail, box.state) for box in drawing.boxes] == [
        ("list", "process", "SUCCEEDED"),
        ("sum", "process", "PENDING"),
        (
            "1000 spawned (list/c0000 ... list/c0999)",
            "990 SUCCEEDED, 10 RUNNING",
            "RUNNING",
        ),
    ]
    assert drawing.boxes[2].spawner == "list"
    assert drawing.arrows == {("list", "sum"): Arrow.SUBTREE}
    assert not drawing.notes
    grammatical(drawing)


def test_tasks_alike_are_one_box() -> None:
    tasks = [task("start"), *(task(f"m{n}", "READY", "start") for n in range(500))]
    tasks.append(task("end", "PENDING", *(f"m{n}" for n in range(500))))
    drawing = drawing_of_run("", tasks)
    assert [box.name for box in drawing.boxes] == ["start", "500 tasks (m0 ... m499)", "end"]
    assert list(drawing.arrows) == [
        ("start", "500 tasks (m0 ... m499)"),
        ("500 tasks (m0 ... m499)", "end"),
    ]
    grammatical(drawing)


def test_what_is_still_too_much_is_left_out_with_a_note() -> None:
    chain = [task("t0"), *(task(f"t{n}", "PENDING", f"t{n - 1}") for n in range(1, 5_000))]
    drawing = drawing_of_run("", chain)
    assert len(drawing.boxes) == BOXES_MAX
    assert len(drawing.arrows) <= ARROWS_MAX
    assert drawing.notes == ["left out: 4850 boxes, 4850 arrows"]
    assert 'note0>"left out#58; 4850 boxes, 4850 arrows"]' in mermaid(drawing)
    grammatical(drawing)


def test_arrows_are_bounded_too() -> None:
    layers = [[f"l{layer}n{n}" for n in range(12)] for layer in range(8)]
    tasks = [
        task(name, "PENDING", *layers[layer - 1][: n + 1] if layer else ())
        for layer, names in enumerate(layers)
        for n, name in enumerate(names)
    ]
    drawing = drawing_of_run("", tasks)
    assert len(drawing.arrows) <= ARROWS_MAX
    grammatical(drawing)
