"""The blackboard's rules: who may write what, what is compared, what a run without room says."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from stretto.blackboard.v1 import blackboard_pb2 as pb
from stretto.common.v1.payload_pb2 import BlobRef, Payload
from stretto.run.v1 import events_pb2 as ev
from stretto.run.v1 import plan_pb2 as plan
from stretto_core.errors import InvalidArgument, Refusal
from stretto_core.ids import TaskName
from stretto_kernel.domain.requests import RequestIdReused
from stretto_kernel.domain.revisions import RevisionMismatch
from stretto_kernel.domain.run import RunEvent, blackboard
from stretto_kernel.domain.run import commands as cmd
from stretto_kernel.domain.run.blackboard import (
    BoardLimit,
    ForeignScope,
)
from stretto_kernel.domain.run.blackboard_keys import parse_key
from stretto_kernel.domain.run.blackboard_state import BoardEntry
from stretto_kernel.domain.run.blob_names import in_event
from stretto_kernel.domain.run.fingerprint import fingerprint
from stretto_kernel.domain.run.queries import manifest
from stretto_kernel.domain.run.refusals import LeaseLost, RunClosed, TaskNotFound

from tests.model.runs import OPERATOR, Story, entry, fold, holder, kinds, started, task

VERIFIER = pb.Writer(kind=pb.WRITER_KIND_VERIFIER, name="eve")
KERNEL = pb.Writer(kind=pb.WRITER_KIND_KERNEL, name="kernel")
X = holder("x", 1)


def leased() -> Story:
    story = started(task("x"), task("y"))
    story.lease("x")
    return story


def lost() -> Story:
    story = leased()
    story.lose("x")
    return story


def leased_again() -> Story:
    story = lost()
    story.lease("x", "w2")
    return story


def completed() -> Story:
    story = leased()
    story.complete("x")
    return story


def cancelling() -> Story:
    story = leased()
    story.cancel()
    return story


def killed() -> Story:
    story = leased()
    story.kill()
    return story


def retried() -> Story:
    story = killed()
    story.retry()
    return story


def not_started() -> Story:
    return Story()


def by_holder(story: Story) -> tuple[RunEvent, ...]:
    return story.put(entry("x:progress/percent"), writer=X)


def by_operator(story: Story) -> tuple[RunEvent, ...]:
    return story.put(entry("x:progress/percent"), entry("context/goal"))


def by_verifier(story: Story) -> tuple[RunEvent, ...]:
    return story.put(entry("x:verifier/verdict"), writer=VERIFIER)


def deleted_by_holder(story: Story) -> tuple[RunEvent, ...]:
    return story.delete("x:progress/percent", writer=X)


def deleted_by_operator(story: Story) -> tuple[RunEvent, ...]:
    return story.delete("x:progress/percent")


COMMANDS = (by_holder, by_operator, by_verifier, deleted_by_holder, deleted_by_operator)
W, L, C, N = "BoardEntriesWritten", "LEASE_LOST", "RUN_CLOSED", "NOT_FOUND"
TABLE = {
    not_started: (N, N, N, N, N),
    leased: (W, W, W, "-", "-"),
    lost: (L, W, W, L, "-"),
    leased_again: (L, W, W, L, "-"),
    completed: (L, W, W, L, "-"),
    cancelling: (W, W, W, "-", "-"),
    killed: (L, C, C, L, C),
    retried: (L, W, W, L, "-"),
}


@pytest.mark.parametrize("given", TABLE)
def test_every_state_answers_every_write(given: Callable[[], Story]) -> None:
    answers = []
    for command in COMMANDS:
        try:
            answers.append("+".join(kinds(command(given()))) or "-")
        except Refusal as refusal:
            answers.append(refusal.reason_word)
    assert tuple(answers) == TABLE[given]


@pytest.mark.parametrize(
    ("writer", "key", "may"),
    [
        (X, "x:progress/a", True),
        (X, "x:result/a", True),
        (X, "x:verifier/a", False),
        (X, "y:progress/a", False),
        (X, "progress/a", False),
        (VERIFIER, "verifier/a", True),
        (VERIFIER, "y:verifier/a", True),
        (VERIFIER, "x:progress/a", False),
        (VERIFIER, "context/a", False),
        (OPERATOR, "verifier/a", True),
        (OPERATOR, "y:result/a", True),
        (KERNEL, "context/a", True),
    ],
)
def test_who_may_write_where(writer: cmd.LeaseHolder | pb.Writer, key: str, may: bool) -> None:
    story = leased()
    if may:
        assert kinds(story.put(entry(key, expected=0), writer=writer)) == [W]
        assert kinds(story.delete(key, expected=story.state.version, writer=writer))
        return
    with pytest.raises(ForeignScope) as refused:
        story.put(entry(key, expected=0), writer=writer)
    assert refused.value.metadata["key"] == key
    with pytest.raises(ForeignScope):
        story.delete(key, expected=0, writer=writer)


def test_a_worker_is_named_with_its_lease() -> None:
    story = leased_again()
    story.put(entry("x:progress/a"), writer=holder("x", 2))
    assert story.state.board is not None
    assert story.state.board.entries["x:progress/a"].writer == pb.Writer(
        kind=pb.WRITER_KIND_WORKER, name="w2", task="x", activation=1, attempt=2, epoch=2
    )


def test_a_stale_holder_hears_the_current_epoch() -> None:
    with pytest.raises(LeaseLost) as refused:
        by_holder(leased_again())
    assert refused.value.metadata["current_epoch"] == "2"


def test_a_scope_needs_its_task() -> None:
    with pytest.raises(TaskNotFound):
        leased().put(entry("nobody:context/a"))


@pytest.mark.parametrize(
    "key",
    [
        *("", "context", "context/", "/a", "wrong/a", "x:context", "x:context/a//b"),
        *("context/a b", ":context/a", "x:y:context/a", "context/a\n"),
        *("context/" + "a" * 257, "x" * 506 + ":plan/a"),
    ],
)
def test_a_wrong_key_is_named(key: str) -> None:
    assert parse_key(key) is None
    with pytest.raises(InvalidArgument) as refused:
        leased().put(entry(key))
    assert [each.field for each in refused.value.violations] == ["writes[0].key"]


def test_a_key_has_a_scope_a_namespace_and_a_path() -> None:
    key = parse_key("crawl/page-3:artifacts/screen/1.png")
    assert key is not None
    assert key == ("crawl/page-3:artifacts/screen/1.png", "crawl/page-3", "artifacts")
    of_run = parse_key("context/goal")
    assert of_run is not None and of_run.task is None


def test_every_mistake_of_a_write_is_named() -> None:
    wrong = [
        entry("context/a"),
        entry("context/a"),
        entry("context/b", "{"),
        entry("result/c"),
        entry("context/d", expected=-1),
    ]
    with pytest.raises(InvalidArgument) as refused:
        leased().put(*wrong)
    assert {each.field for each in refused.value.violations} == {
        "writes[1].key",
        "writes[2].value.json",
        "writes[3].expected_revision",
        "writes[4].expected_revision",
    }


@pytest.mark.parametrize("count", [0, blackboard.CHANGES_MAX + 1])
def test_a_write_has_one_to_a_hundred_entries(count: int) -> None:
    with pytest.raises(InvalidArgument):
        leased().put(*(entry(f"context/{index}") for index in range(count)))
    with pytest.raises(InvalidArgument):
        leased().delete(*(f"context/{index}" for index in range(count)))


def test_a_revision_is_the_version_of_the_fact_and_survives_a_delete_and_a_retry() -> None:
    story = leased()
    seen = []
    for _ in range(2):
        story.put(entry("context/a", expected=0), entry("context/b", expected=0))
        seen.append(story.state.version)
        assert {each.revision for each in _entries(story).values()} == {story.state.version}
        story.delete("context/a", "context/b", expected=story.state.version)
        seen.append(story.state.version)
        assert _entries(story) == {}
    story.put(entry("context/a"))
    story.kill()
    story.retry()
    revision = _entries(story)["context/a"].revision
    assert sorted({*seen, revision}) == [*seen, revision]
    story.put(entry("context/a", "2", expected=revision))
    assert _entries(story)["context/a"].revision > revision


@pytest.mark.parametrize("expected", [0, 1, 99])
def test_a_wrong_revision_is_told_the_current_one(expected: int) -> None:
    story = leased()
    story.put(entry("context/a"), entry("context/b"))
    revision = story.state.version
    before = fingerprint(story.state)
    acts: list[Callable[[], object]] = [
        lambda: story.put(entry("context/b"), entry("context/a", expected=expected)),
        lambda: story.delete("context/b", "context/a", expected=expected),
    ]
    for act in acts:
        with pytest.raises(RevisionMismatch) as refused:
            act()
        assert refused.value.metadata["current_revision"] == str(revision)
        assert refused.value.retry_delay_ms is None
    assert fingerprint(story.state) == before, "all of it or nothing"


def test_what_is_not_there_has_revision_0() -> None:
    story = leased()
    acts: list[Callable[[], object]] = [
        lambda: story.put(entry("context/a", expected=3)),
        lambda: story.delete("context/a", expected=3),
    ]
    for act in acts:
        with pytest.raises(RevisionMismatch) as refused:
            act()
        assert refused.value.metadata["current_revision"] == "0"
    assert story.delete("context/a", expected=0) == story.delete("context/a") == ()


def test_a_repeated_write_changes_nothing_whatever_came_since() -> None:
    story = leased()
    request = story.request()
    story.put(entry("x:context/a"), writer=X, request=request)
    first = story.state.version
    story.put(entry("x:context/a", "2"))
    story.lose("x")
    story.kill()
    assert story.put(entry("x:context/a"), writer=X, request=request) == ()
    assert story.state.requests.version_of(request[0]) == first
    with pytest.raises(RequestIdReused):
        story.put(entry("x:context/a"), writer=X, request=(request[0], b"other"))


def test_a_deletion_names_only_what_was_there() -> None:
    story = leased()
    story.put(entry("context/a"))
    (deleted,) = story.delete("context/b", "context/a")
    assert isinstance(deleted, ev.BoardEntriesDeleted)
    assert list(deleted.keys) == ["context/a"]


def test_the_board_is_bounded_in_entries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blackboard, "ENTRIES_MAX", 2)
    story = leased()
    story.put(entry("context/a"), entry("context/b"))
    with pytest.raises(BoardLimit) as refused:
        story.put(entry("context/a"), entry("context/c"))
    assert refused.value.retry_delay_ms is None
    story.put(entry("context/a", "2"))
    story.delete("context/b")
    story.put(entry("context/c"))


def test_the_board_is_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blackboard, "BOARD_BYTES_MAX", 1_000)
    story = leased()
    story.put(entry("context/a", f'"{"a" * 600}"'))
    with pytest.raises(BoardLimit):
        story.put(entry("context/b", f'"{"b" * 600}"'))
    story.put(entry("context/a", f'"{"c" * 700}"'))
    story.put(entry("context/a", "1"), entry("context/b", f'"{"b" * 600}"'))
    story.delete("context/a", "context/b")
    assert story.state.board is not None and story.state.board.size_bytes == 0


def test_a_large_value_is_a_blob_that_the_fact_names() -> None:
    story = leased()
    with pytest.raises(InvalidArgument):
        story.put(entry("context/a", f'"{"a" * 65_536}"'))
    blob = Payload(blob=BlobRef(digest=bytes(32), size_bytes=1 << 20))
    (event,) = story.put(cmd.EntryWrite(key="context/a", value=blob))
    assert list(in_event(event)) == [(bytes(32), 1 << 20)]


def test_a_clone_has_a_board_of_its_own() -> None:
    story = leased()
    story.put(entry("context/a"))
    before = fingerprint(story.state)
    twin = story.state.clone()
    twin.own_board().apply(())
    twin.own_board().entries.clear()
    assert fingerprint(story.state) == before
    story.put(entry("context/b"))
    assert set(_entries(story)) == {"context/a", "context/b"}


def test_the_fold_of_the_log_is_the_board() -> None:
    story = leased()
    story.put(entry("context/a"), entry("context/b"))
    story.delete("context/a")
    assert fingerprint(fold(story.log)) == fingerprint(story.state)


def test_a_run_without_a_board_has_none() -> None:
    story = leased()
    assert story.state.board is None and story.state.clone().board is None


def _bound(key: str, pointer: str = "", *, may_be_missing: bool = False) -> plan.Binding:
    entry_ref = plan.BoardEntryRef(key=key, pointer=pointer, may_be_missing=may_be_missing)
    return plan.Binding(board_entry=entry_ref)


def test_a_task_gets_the_entries_that_it_binds_and_their_revisions() -> None:
    story = started(
        task(
            "x",
            inputs={
                "goal": _bound("context/goal", "/aim"),
                "hint": _bound("human/hint", may_be_missing=True),
            },
        ),
        task("y"),
    )
    story.put(entry("context/goal", '{"aim": 42}'))
    revision = story.state.version
    (leased_fact,) = story.lease("x")
    given = manifest(story.state, TaskName("x"))
    assert given.inputs == {"goal": Payload(json="42"), "hint": Payload(json="null")}
    assert given.revisions == {"goal": revision, "hint": 0}
    assert isinstance(leased_fact, ev.AttemptLeased)
    assert leased_fact.manifest_digest == given.digest
    story.put(entry("context/goal", '{"aim": 42}'))
    assert manifest(story.state, TaskName("x")).digest != given.digest, "another revision"


def test_a_missing_entry_fails_the_task_that_needs_it() -> None:
    story = started(task("x", inputs={"goal": _bound("context/goal")}), task("y"))
    (failed,) = story.lease("x")
    assert isinstance(failed, ev.TaskFailed)
    assert failed.failure.reason == "INPUT_UNRESOLVED"
    assert "context/goal" in failed.failure.message


def test_a_run_may_yield_an_entry() -> None:
    story = started(task("x"), output=_bound("x:result/answer"))
    story.lease("x")
    story.put(entry("x:result/answer", "42", expected=0), writer=X)
    *_, ended = story.complete("x")
    assert ended == ev.RunSucceeded(output=Payload(json="42"))


def test_a_plan_binds_keys_that_can_be() -> None:
    with pytest.raises(InvalidArgument) as refused:
        started(task("x", inputs={"a": _bound("wrong/a"), "b": _bound("plan/a", "no pointer")}))
    assert [each.field for each in refused.value.violations] == [
        "task_graph.tasks[0].inputs['a'].board_entry.key",
        "task_graph.tasks[0].inputs['b'].board_entry.pointer",
    ]


def test_a_closed_run_says_how_it_ended() -> None:
    with pytest.raises(RunClosed) as refused:
        by_operator(killed())
    assert refused.value.metadata["state"] == "KILLED"


def _entries(story: Story) -> dict[str, BoardEntry]:
    assert story.state.board is not None
    return dict(story.state.board.entries)
