"""Where inputs and the run's output come from."""

from __future__ import annotations

import pytest
from stretto.common.v1.payload_pb2 import Payload
from stretto.run.v1 import events_pb2 as ev
from stretto.run.v1 import plan_pb2 as plan
from stretto_core.ids import TaskName
from stretto_kernel.domain.run import commands as cmd
from stretto_kernel.domain.run import queries

from tests.model.runs import Story, below, graph, kinds, started, task

IGNORED = plan.ON_FAILURE_IGNORE
DONE = plan.JoinRule(kind=plan.JOIN_KIND_ALL_DONE)


def _output(name: str, pointer: str = "") -> plan.Binding:
    return plan.Binding(task_output=plan.TaskOutputRef(task=name, pointer=pointer))


def _inputs(story: Story, name: str) -> dict[str, str]:
    story.lease(name)
    manifest = queries.manifest(story.state, TaskName(name))
    return {key: payload.json for key, payload in manifest.inputs.items()}


def test_every_kind_of_input_is_resolved() -> None:
    story = Story()
    inputs = {
        "literal": plan.Binding(literal=Payload(json="[1]")),
        "whole": _output("a"),
        "part": _output("a", "/list/1/x~1y"),
        "given": plan.Binding(run_input=plan.RunInputRef(pointer="/n")),
    }
    story.start(graph(task("a"), task("b", "a", inputs=inputs)), input=Payload(json='{"n": 5}'))
    story.lease("a")
    story.complete("a", '{"list": [0, {"x/y": "z"}]}')
    assert _inputs(story, "b") == {
        "literal": "[1]",
        "whole": '{"list": [0, {"x/y": "z"}]}',
        "part": '"z"',
        "given": "5",
    }


def test_bytes_are_bound_whole() -> None:
    story = started(task("a"), task("b", "a", inputs={"i": _output("a")}))
    story.lease("a")
    raw = Payload(data=b"\x00", content_type="image/png")
    story.do(cmd.Complete(now_ns=story.now_ns, task=TaskName("a"), epoch=1, result=raw))
    story.lease("b")
    assert queries.manifest(story.state, TaskName("b")).inputs["i"] == raw


@pytest.mark.parametrize("pointer", ["/none", "/list/2", "/list/-", "/list/01", "/n/deeper"])
def test_a_path_that_is_not_there_fails_the_task_for_good(pointer: str) -> None:
    story = started(task("a"), task("b", "a", inputs={"i": _output("a", pointer)}))
    story.lease("a")
    story.complete("a", '{"list": [0, 1], "n": 1}')
    events = story.lease("b")
    assert kinds(events) == ["TaskFailed", "RunFailed"]
    assert isinstance(events[0], ev.TaskFailed)
    assert events[0].failure.reason == "INPUT_UNRESOLVED"
    assert not events[0].failure.retryable
    assert "'i'" in events[0].failure.message


def test_a_tolerated_failure_binds_as_itself_and_a_skipped_task_as_null() -> None:
    story = started(
        task("a", on_failure=IGNORED),
        task("b"),
        task("skipped", "b"),
        task(
            "c",
            "a",
            "skipped",
            join=DONE,
            inputs={"failed": _output("a", "/x"), "skipped": _output("skipped", "/x")},
        ),
    )
    for name in ("a", "b"):
        story.lease(name)
        story.fail(name, "WORN_OUT", retryable=False)
    inputs = _inputs(story, "c")
    assert '"reason":"WORN_OUT"' in inputs["failed"]
    assert inputs["skipped"] == "null"


def test_outputs_of_a_subtree_come_in_spawn_order() -> None:
    subtree = plan.Binding(subtree_outputs=plan.SubtreeOutputsRef(task="a", pointer="/n"))
    story = started(
        task("a", may_spawn=True), task("b", below("a"), join=DONE, inputs={"all": subtree})
    )
    story.lease("a")
    story.complete("a", spawned=(task("x"), task("y"), task("z")))
    for name, number in (("a/z", 3), ("a/x", 1)):
        story.lease(name)
        story.complete(name, f'{{"n": {number}}}')
    story.lease("a/y")
    story.fail("a/y", retryable=False)
    all_outputs = _inputs(story, "b")["all"]
    assert all_outputs.startswith('[1,{"reason":"BROKEN"') and all_outputs.endswith(",3]")


def test_inputs_too_large_together_fail_the_task() -> None:
    big = '"' + "x" * 60_000 + '"'
    subtree = plan.Binding(subtree_outputs=plan.SubtreeOutputsRef(task="a"))
    story = started(task("a", may_spawn=True), task("b", below("a"), inputs={"all": subtree}))
    story.lease("a")
    children = tuple(task(f"c{index}") for index in range(20))
    story.complete("a", spawned=children)
    for child in children:
        story.lease(f"a/{child.name}")
        story.complete(f"a/{child.name}", big)
    (failed, _) = story.lease("b")
    assert isinstance(failed, ev.TaskFailed)
    assert failed.failure.reason == "INPUT_UNRESOLVED"
    assert "too large" in failed.failure.message


def test_the_manifests_digest_follows_from_its_content() -> None:
    digests = []
    for result in ("1", "2", "1"):
        story = started(task("a"), task("b", "a", inputs={"i": _output("a")}))
        story.lease("a")
        story.complete("a", result)
        (leased,) = story.lease("b")
        assert isinstance(leased, ev.AttemptLeased)
        digests.append(leased.manifest_digest)
    assert digests[0] == digests[2] != digests[1]
    assert len(digests[0]) == 32


def test_the_run_yields_its_output_binding() -> None:
    story = started(task("a"), output=_output("a", "/answer"))
    story.lease("a")
    (_, succeeded) = story.complete("a", '{"answer": 42}')
    assert isinstance(succeeded, ev.RunSucceeded)
    assert succeeded.output.json == "42"


def test_an_output_that_is_not_there_fails_the_run() -> None:
    story = started(task("a"), output=_output("a", "/answer"))
    story.lease("a")
    (_, failed) = story.complete("a", "{}")
    assert isinstance(failed, ev.RunFailed)
    assert failed.failure.reason == "OUTPUT_UNRESOLVED"
