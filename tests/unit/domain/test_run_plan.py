"""What a plan may say: every mistake is named with its path, and a bad plan stores nothing."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

import pytest
from google.protobuf.duration_pb2 import Duration
from stretto.common.v1.payload_pb2 import Payload
from stretto.run.v1 import events_pb2 as ev
from stretto.run.v1 import plan_pb2 as plan
from stretto_core.errors import FieldViolation, InvalidArgument, Unimplemented
from stretto_core.ids import RequestId, TaskName
from stretto_kernel.domain.run import RunEvent, RunState, decide, queries
from stretto_kernel.domain.run import commands as cmd
from stretto_kernel.domain.run.canonical import digest_of, encoding_graph, encoding_tasks
from stretto_kernel.domain.run.judging import judging_tasks
from stretto_kernel.domain.run.parts import PART_TASKS, whole
from stretto_kernel.domain.run.plan import read_graph
from stretto_kernel.domain.run.refusals import PlanSealed, TaskConflict, TaskLimit

from tests.model.runs import T0, Story, below, graph, kinds, started, task


def _violations(*tasks: plan.TaskSpec, **policies: object) -> dict[str, str]:
    story = Story()
    with pytest.raises(InvalidArgument) as caught:
        story.start(graph(*tasks, **policies))
    assert story.state.version == 0
    return {each.field: each.description for each in caught.value.violations}


def _outcome(state: RunState, command: cmd.Command) -> Sequence[RunEvent | FieldViolation]:
    try:
        return decide(state, command)
    except InvalidArgument as refusal:
        return refusal.violations


def _output_of(name: str, pointer: str = "") -> plan.Binding:
    return plan.Binding(task_output=plan.TaskOutputRef(task=name, pointer=pointer))


def test_a_cycle_is_named_by_its_path() -> None:
    found = _violations(task("a", "c"), task("b", "a"), task("c", "b"), task("d", "c"))
    assert found == {"task_graph.tasks": "the dependencies form a cycle: a -> c -> b -> a"}


def test_every_mistake_is_reported_at_once() -> None:
    bad = task("no spaces", "unknown", retry=plan.RetryPolicy(max_attempts=-1))
    bad.executor = ""
    bad.priority = 101
    bad.arguments_json = "[1]"
    bad.timeouts.attempt.seconds = -5
    found = _violations(bad, task("twin"), task("twin"), run_timeout=Duration(seconds=0))
    assert set(found) == {
        "task_graph.run_timeout",
        "task_graph.tasks[0].name",
        "task_graph.tasks[0].executor",
        "task_graph.tasks[0].priority",
        "task_graph.tasks[0].arguments_json",
        "task_graph.tasks[0].retry.max_attempts",
        "task_graph.tasks[0].timeouts.attempt",
        "task_graph.tasks[0].dependencies[0].task",
        "task_graph.tasks[2].name",
    }


def test_the_nearest_known_name_is_suggested() -> None:
    found = _violations(task("report"), task("check", "reprot"))
    assert found["task_graph.tasks[1].dependencies[0].task"] == (
        "no task is named 'reprot'; did you mean 'report'?"
    )


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        (task("a", "a"), "dependencies[0].task"),
        (task("a", "x", "x"), "dependencies[1].task"),
        (task("a", join=plan.JoinRule(kind=plan.JOIN_KIND_ANY_SUCCEEDED)), "join.kind"),
        (
            task("a", "x", join=plan.JoinRule(kind=plan.JOIN_KIND_N_SUCCEEDED, count=2)),
            "join.count",
        ),
        (task("a", "x", join=plan.JoinRule(count=1)), "join.count"),
        (task("a", "x", join=plan.JoinRule(rest=plan.JOIN_REST_CANCELLED)), "join.rest"),
        (task("a", "tidy"), "dependencies[0].task"),
        (task("a", "x", clean_up=True), "dependencies[0].task"),
        (task("a", inputs={"i": _output_of("x")}), "inputs['i']"),
        (task("a", "x", inputs={"i": plan.Binding()}), "inputs['i']"),
        (
            task("a", "x", inputs={"i": _output_of("x", "no-slash")}),
            "inputs['i'].task_output.pointer",
        ),
        (
            task(
                "a",
                "x",
                inputs={"i": plan.Binding(subtree_outputs=plan.SubtreeOutputsRef(task="x"))},
            ),
            "inputs['i']",
        ),
        (
            task("a", inputs={"i": plan.Binding(literal=Payload(json="{nope"))}),
            "inputs['i'].literal.json",
        ),
        (
            task("a", inputs={"i": plan.Binding(literal=Payload(json='"' + "a" * 65_536 + '"'))}),
            "inputs['i'].literal.json",
        ),
        (task("a", timeouts=plan.Timeouts(heartbeat=Duration(nanos=5))), "timeouts.heartbeat"),
        (task("a", retry=plan.RetryPolicy(coefficient=0.5)), "retry.coefficient"),
        (task("a", retry=plan.RetryPolicy(coefficient=float("nan"))), "retry.coefficient"),
        (task("a", retry=plan.RetryPolicy(jitter=1.5)), "retry.jitter"),
        (
            task(
                "a",
                retry=plan.RetryPolicy(
                    initial_interval=Duration(seconds=9), max_interval=Duration(seconds=3)
                ),
            ),
            "retry.max_interval",
        ),
        (task("a", on_failure=99), "on_failure"),  # type: ignore[arg-type]
    ],
)
def test_a_wrong_field_is_named(spec: plan.TaskSpec, field: str) -> None:
    found = _violations(task("x"), task("tidy", clean_up=True), spec)
    assert list(found) == [f"task_graph.tasks[2].{field}"]


def test_an_input_may_read_any_ancestor_and_clean_up_any_task() -> None:
    story = started(
        task("a"),
        task("b", "a"),
        task("c", "b", inputs={"i": _output_of("a")}),
        task("tidy", clean_up=True, inputs={"i": _output_of("c")}),
    )
    assert story.state.version == 1


@pytest.mark.parametrize(
    ("spec", "feature"),
    [
        (plan.TaskSpec(verification=plan.VerificationPolicy(verifiers=["v"])), "verification"),
        (plan.TaskSpec(on_failure=plan.ON_FAILURE_REPLAN), "replan"),
        (plan.TaskSpec(on_failure=plan.ON_FAILURE_ESCALATE), "escalate"),
    ],
)
def test_what_is_not_served_is_refused_by_name(spec: plan.TaskSpec, feature: str) -> None:
    spec.name, spec.executor = "a", "process"
    with pytest.raises(Unimplemented) as caught:
        Story().start(graph(spec))
    assert caught.value.metadata["feature"] == feature


def test_the_recorded_plan_has_every_default_written_out() -> None:
    (event,) = Story().start(graph(task("a")))
    assert isinstance(event, ev.RunStarted)
    spec = event.plan.tasks[0]
    assert event.plan.cancel_grace.seconds == 10
    assert event.plan.task_count_max == 10_000
    assert (spec.retry.max_attempts, spec.retry.coefficient, spec.retry.jitter) == (3, 2.0, 0.2)
    assert (spec.queue, spec.arguments_json) == ("default", "{}")
    assert spec.timeouts.heartbeat.seconds == 30


def test_a_plan_needs_a_task_unless_it_grows() -> None:
    assert list(_violations()) == ["task_graph.tasks"]
    assert kinds(Story().start(graph(growing=True))) == ["RunStarted"]


def test_a_slice_is_limited_and_a_run_as_well() -> None:
    many = [task(f"t{index}") for index in range(1_001)]
    assert list(_violations(*many)) == ["task_graph.tasks"]
    with pytest.raises(TaskLimit):
        Story().start(graph(task("a"), task("b"), task_count_max=1))
    story = started(task("a"), growing=True, task_count_max=2)
    story.add(task("b"))
    with pytest.raises(TaskLimit):
        story.add(task("c"))


def test_a_slice_may_depend_on_earlier_ones_and_dispatches_at_once() -> None:
    story = started(task("a"), growing=True)
    assert kinds(story.add(task("b", "a"), task("c"))) == ["TasksAdded"]
    assert list(story.state.open_tasks) == ["a", "c"]
    with pytest.raises(InvalidArgument):
        story.add(task("d", "nobody"))


def test_the_same_task_again_is_left_out_and_another_is_a_conflict() -> None:
    story = started(task("a"), growing=True)
    assert story.add(task("a")) == ()
    (added,) = story.add(task("a"), task("b"))
    assert isinstance(added, ev.TasksAdded)
    assert [spec.name for spec in added.tasks] == ["b"]
    with pytest.raises(TaskConflict):
        story.add(task("b", "a"))


def test_a_sealed_plan_takes_no_further_slice_and_ends_when_its_tasks_have() -> None:
    story = started(task("a"), growing=True)
    story.lease("a")
    assert kinds(story.complete("a")) == ["AttemptSucceeded"]  # More may come.
    assert kinds(story.add(sealed=True)) == ["TasksAdded", "RunSucceeded"]
    other = started(task("a"), growing=True)
    other.add(sealed=True)
    with pytest.raises(PlanSealed):
        other.add(task("b"))


def test_a_join_over_a_subtree_counts_more_than_its_edges() -> None:
    join = plan.JoinRule(kind=plan.JOIN_KIND_N_SUCCEEDED, count=3)
    assert started(task("a"), task("b", below("a"), join=join)).state.version == 1


def test_ancestors_are_found_within_a_slice_and_beyond_it_as_by_walking() -> None:
    for seed in range(40):
        rng = random.Random(seed)
        names = [f"t{number}" for number in range(12)]
        parents = {
            name: rng.sample(names[:number], min(number, rng.randint(0, 2)))
            for number, name in enumerate(names)
        }
        above: dict[str, set[str]] = {}
        for name in names:
            above[name] = set(parents[name]).union(*(above[each] for each in parents[name]))
        reader, read = rng.sample(names[6:], 1)[0], rng.choice(names)
        if read == reader:
            continue
        specs = []
        for name in names:
            inputs = {"x": _output_of(read)} if name == reader else {}
            edges = [plan.Dependency(task=each) for each in parents[name]]
            specs.append(
                plan.TaskSpec(name=name, executor="process", dependencies=edges, inputs=inputs)
            )
        late = specs[6:]
        rng.shuffle(late)
        for first, then in ((specs[:6], late), (specs[:6] + late, [])):
            story = Story()
            try:
                story.start(plan.TaskGraph(growing=True, tasks=first))
                if then:
                    story.add(*then)
            except InvalidArgument as refused:
                assert read not in above[reader], (seed, refused)
            else:
                assert read in above[reader], seed


@pytest.mark.parametrize(
    ("executor", "said"),
    [("proces", "did you mean 'process'?"), ("render", "known: http, process, python, sleep")],
)
def test_an_unknown_executor_is_refused_with_what_is_known(executor: str, said: str) -> None:
    mistyped = task("b")
    mistyped.executor = executor
    with pytest.raises(InvalidArgument) as caught:
        started(task("a"), mistyped)
    (violation,) = caught.value.violations
    assert violation.field == "task_graph.tasks[1].executor"
    assert said in violation.description


def test_an_executor_of_ones_own_has_a_dot_and_may_be_offered_later() -> None:
    own = task("a")
    own.executor = "acme.render"
    story = started(own)
    offer = queries.offer(story.state, TaskName("a"))
    assert offer is not None and offer.executor == "acme.render"


def test_a_plan_that_comes_again_is_judged_and_recorded_alike() -> None:
    good = graph(task("a"), task("b", "a"))
    first, second = Story(), Story()
    assert first.start(good) == second.start(good)
    assert first.state.tasks[TaskName("b")].spec == second.state.tasks[TaskName("b")].spec
    first.lease("a")
    first.complete("a")
    assert second.state.tasks[TaskName("a")].epoch == 0, "what is remembered is never changed"
    for _ in range(3):
        assert _violations(task("a", "a")) == _violations(task("a", "a")) != {}


def test_a_slice_judged_ahead_in_parts_is_decided_as_one_judged_at_once() -> None:
    tasks = tuple(task(f"t{n}", *([f"t{n - 1}"] if n % 7 else [])) for n in range(3 * PART_TASKS))
    wrong = task("wrong", "nobody")
    wrong.priority = 101
    story = started(task("first"), growing=True, task_count_max=1_000)
    for slice_ in (tasks, (*tasks, wrong)):
        parts = judging_tasks("tasks", slice_)
        assert sum(1 for _ in parts) >= 2, "others run in between"
        plain = cmd.AddTasks(
            now_ns=T0, request_id=RequestId("r"), request_digest=b"d", tasks=slice_
        )
        ahead = replace(plain, judged=whole(judging_tasks("tasks", slice_)))
        outcomes = [_outcome(story.state, command) for command in (plain, ahead, ahead)]
        assert outcomes[0] == outcomes[1] == outcomes[2]
    assert [each.field for each in outcomes[0] if isinstance(each, FieldViolation)] == [
        f"tasks[{len(tasks)}].priority",
        f"tasks[{len(tasks)}].dependencies[0].task",
    ]


def test_a_plan_encoded_in_parts_has_the_digest_of_one_encoded_at_once() -> None:
    large = graph(*(task(f"t{n}") for n in range(10 * PART_TASKS)))
    policies, specs = read_graph(large)
    at_once = digest_of(policies, list(specs))
    assert digest_of(whole(encoding_graph(large))) == at_once
    assert digest_of(whole(encoding_tasks(large.tasks))) == digest_of(list(specs))
    assert sum(1 for _ in encoding_graph(large)) >= 9, "others run in between"


def test_a_task_without_a_fairness_key_has_the_runs_spawned_ones_too() -> None:
    own = task("own")
    own.fairness_key = "mine"
    story = started(own, task("s", may_spawn=True), fairness_key="all")
    story.lease("s")
    story.spawn("s", task("child"))
    keys = {str(offer.task): offer.fairness_key for offer in queries.every_offer(story.state)}
    assert keys == {"own": "mine", "s/child": "all"}
    with pytest.raises(InvalidArgument) as caught:
        Story().start(graph(task("a"), fairness_key="two words"))
    assert caught.value.violations[0].field == "task_graph.fairness_key"
