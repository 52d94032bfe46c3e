"""Join rules, skipping, subtrees and spawning."""

from __future__ import annotations

import pytest
from stretto.run.v1 import plan_pb2 as plan
from stretto.run.v1 import run_pb2 as pb
from stretto_core.errors import InvalidArgument
from stretto_core.ids import TaskName
from stretto_kernel.domain.run import queries
from stretto_kernel.domain.run.refusals import SpawnNotAllowed, TaskConflict, TaskLimit

from tests.model.runs import Story, below, kinds, started, task

ANY = plan.JoinRule(kind=plan.JOIN_KIND_ANY_SUCCEEDED)
ANY_REST_CANCELLED = plan.JoinRule(kind=plan.JOIN_KIND_ANY_SUCCEEDED, rest=plan.JOIN_REST_CANCELLED)
TWO = plan.JoinRule(kind=plan.JOIN_KIND_N_SUCCEEDED, count=2)
DONE = plan.JoinRule(kind=plan.JOIN_KIND_ALL_DONE)


def _state(story: Story, name: str) -> str:
    number = queries.task_state(story.state, TaskName(name), story.now_ns)
    return pb.TaskState.Name(number).removeprefix("TASK_STATE_")


def _succeed(story: Story, *names: str) -> None:
    for name in names:
        story.lease(name)
        story.complete(name)


def _fail(story: Story, name: str) -> list[str]:
    story.lease(name)
    return kinds(story.fail(name, retryable=False))


def test_all_succeeded_waits_for_every_dependency() -> None:
    story = started(task("a"), task("b"), task("c", "a", "b"))
    _succeed(story, "a")
    assert _state(story, "c") == "PENDING"
    _succeed(story, "b")
    assert _state(story, "c") == "READY"


def test_skipping_propagates_transitively_and_spares_what_tolerates_it() -> None:
    story = started(task("a"), task("b", "a"), task("c", "b"), task("d", "b", join=DONE))
    _fail(story, "a")
    assert [_state(story, name) for name in "bcd"] == ["SKIPPED", "SKIPPED", "READY"]


def test_an_ignored_failure_lets_its_dependents_run_and_the_run_succeed() -> None:
    story = started(task("a", on_failure=plan.ON_FAILURE_IGNORE), task("b", "a"))
    _fail(story, "a")
    assert _state(story, "b") == "READY"
    story.lease("b")
    assert kinds(story.complete("b")) == ["AttemptSucceeded", "RunSucceeded"]


def test_any_succeeded_needs_one_and_is_skipped_when_none_can() -> None:
    story = started(task("a"), task("b"), task("c", "a", "b", join=ANY))
    _fail(story, "a")
    assert _state(story, "c") == "PENDING"
    _fail(story, "b")
    assert _state(story, "c") == "SKIPPED"


def test_n_succeeded_needs_so_many() -> None:
    story = started(task("a"), task("b"), task("c"), task("d", "a", "b", "c", join=TWO))
    _fail(story, "a")
    _succeed(story, "b")
    assert _state(story, "d") == "PENDING"
    _succeed(story, "c")
    assert _state(story, "d") == "READY"


def test_the_rest_is_cancelled_unless_another_needs_it() -> None:
    story = started(
        task("a"),
        task("held"),
        task("shared"),
        task("idle"),
        task("join", "a", "held", "shared", "idle", join=ANY_REST_CANCELLED),
        task("other", "shared"),
    )
    story.lease("held")
    _succeed(story, "a")
    assert _state(story, "idle") == "CANCELLED"
    assert _state(story, "shared") == "READY"
    assert _state(story, "held") == "RUNNING"
    signal = queries.stop_signal(story.state, TaskName("held"))
    assert signal is not None and signal.deadline_ns == story.now_ns + 10 * 10**9
    assert kinds(story.fail("held")) == ["AttemptFailed"]
    assert _state(story, "held") == "CANCELLED"  # Asked to stop: not tried again, no failure.
    assert story.state.failure is None


def test_what_an_unneeded_spawner_spawns_is_cancelled_with_it() -> None:
    story = started(
        task("a"),
        task("spawner", may_spawn=True),
        task("join", "a", below("spawner"), join=ANY_REST_CANCELLED),
    )
    story.lease("spawner")
    _succeed(story, "a")
    story.spawn("spawner", task("x"))
    assert _state(story, "spawner/x") == "CANCELLED"


def test_a_subtree_holds_when_everything_below_has_ended() -> None:
    story = started(task("a", may_spawn=True), task("b", below("a")), task("c", "a"))
    story.lease("a")
    story.spawn("a", task("early"))
    story.complete("a", spawned=(task("x", may_spawn=True), task("y", "x")))
    assert [_state(story, name) for name in ("b", "c")] == ["PENDING", "READY"]
    _succeed(story, "a/early")
    story.lease("a/x")
    story.complete("a/x", spawned=(task("deep"),))
    _succeed(story, "a/y")
    assert _state(story, "b") == "PENDING"
    _succeed(story, "a/x/deep")
    assert _state(story, "b") == "READY"


def test_a_failure_below_counts_in_a_join_over_the_subtree() -> None:
    story = started(task("a", may_spawn=True), task("b", below("a")))
    story.lease("a")
    story.complete("a", spawned=(task("x"),))
    _fail(story, "a/x")
    assert _state(story, "b") == "SKIPPED"


def test_a_slice_may_join_a_subtree_that_exists() -> None:
    story = started(task("a", may_spawn=True), growing=True)
    story.lease("a")
    story.complete("a", spawned=(task("x"), task("y")))
    _succeed(story, "a/x")
    story.add(task("b", below("a")), sealed=True)
    assert _state(story, "b") == "PENDING"
    _succeed(story, "a/y")
    assert _state(story, "b") == "READY"


def test_spawning_needs_the_specs_word() -> None:
    story = started(task("a"))
    story.lease("a")
    with pytest.raises(SpawnNotAllowed):
        story.complete("a", spawned=(task("x"),))
    assert kinds(story.complete("a")) == ["AttemptSucceeded", "RunSucceeded"]


def test_the_same_spawn_again_is_nothing_and_another_spec_a_conflict() -> None:
    story = started(task("a", may_spawn=True))
    story.lease("a")
    assert kinds(story.spawn("a", task("x"))) == ["TasksSpawned"]
    assert story.spawn("a", task("x")) == ()
    with pytest.raises(TaskConflict):
        story.spawn("a", task("x", may_spawn=True))
    # The next attempt of the spawner finds what the lost one spawned.
    story.lose("a")
    story.lease("a")
    assert kinds(story.complete("a", spawned=(task("x"), task("y", "x")))) == ["AttemptSucceeded"]
    assert list(story.state.tasks) == ["a", "a/x", "a/y"]


def test_spawned_tasks_depend_on_siblings_and_on_their_spawners_dependencies() -> None:
    story = started(task("before"), task("far"), task("a", "before", may_spawn=True))
    _succeed(story, "before")
    story.lease("a")
    with pytest.raises(InvalidArgument) as caught:
        story.spawn("a", task("x", "far"))
    assert caught.value.violations[0].field == "tasks[0].dependencies[0].task"
    with pytest.raises(InvalidArgument):
        story.spawn("a", task("tidy", clean_up=True))
    story.spawn("a", task("x", "before"), task("y", "x"))
    assert [_state(story, name) for name in ("a/x", "a/y")] == ["READY", "PENDING"]


def test_spawning_is_limited_in_number_and_depth() -> None:
    story = started(task("a", may_spawn=True), task_count_max=2)
    story.lease("a")
    with pytest.raises(TaskLimit):
        story.spawn("a", task("x"), task("y"))
    story = started(task("a", may_spawn=True))
    name = "a"
    for _ in range(16):
        story.lease(name)
        story.complete(name, spawned=(task("n", may_spawn=True),))
        name += "/n"
    story.lease(name)
    with pytest.raises(InvalidArgument):
        story.complete(name, spawned=(task("n"),))


def test_a_wide_join_counts_and_a_long_chain_is_skipped_without_recursion() -> None:
    parents = [task(f"p{index}") for index in range(999)]
    story = started(*parents, task("join", *(spec.name for spec in parents)))
    _succeed(story, *(spec.name for spec in parents))
    assert _state(story, "join") == "READY"
    chain = [task("t0"), *(task(f"t{index}", f"t{index - 1}") for index in range(1, 1_000))]
    story = started(*chain)
    assert _fail(story, "t0") == ["AttemptFailed", "RunFailed"]
    assert _state(story, "t999") == "SKIPPED"
