"""Numbers of the contract as words: every one has a member, and those of a newer kernel UNKNOWN."""

from __future__ import annotations

from enum import StrEnum

import pytest
from google.protobuf.internal.enum_type_wrapper import EnumTypeWrapper
from stretto.blackboard.v1 import blackboard_pb2
from stretto.projection.v1 import projection_service_pb2
from stretto.registry.v1 import worker_registry_service_pb2
from stretto.run.v1 import run_pb2
from stretto.tasklog.v1 import task_log_pb2
from stretto_sdk.blackboard import WriterKind, entry_of
from stretto_sdk.client_views import ViewState
from stretto_sdk.client_workers import WorkerState
from stretto_sdk.runs import RunState, TaskState, run_of, task_of
from stretto_sdk.task_log import LogStream
from stretto_sdk.words import member_of, word_of

NEWER = 4_711


@pytest.mark.parametrize(
    ("words", "enum"),
    [
        (RunState, run_pb2.RunState),
        (TaskState, run_pb2.TaskState),
        (WriterKind, blackboard_pb2.WriterKind),
        (LogStream, task_log_pb2.LogStream),
        (WorkerState, worker_registry_service_pb2.WorkerState),
        (ViewState, projection_service_pb2.ViewState),
    ],
)
def test_every_number_of_the_contract_has_a_word(
    words: type[StrEnum], enum: EnumTypeWrapper
) -> None:
    known = [member_of(words, enum, number) for number in enum.values() if number]
    assert words["UNKNOWN"] not in known
    assert {*known, words["UNKNOWN"]} == set(words)
    assert member_of(words, enum, NEWER) is words["UNKNOWN"]
    assert member_of(words, enum, 0) is words["UNKNOWN"]


def test_what_a_newer_kernel_says_is_read() -> None:
    state = run_pb2.RunState.ValueType(NEWER)
    run = run_of(run_pb2.Run(name="namespaces/default/runs/r", state=state))
    assert run.state is RunState.UNKNOWN and not run.state.ended
    reason = run_pb2.WaitReason.ValueType(NEWER)
    task = task_of(run_pb2.Task(task="t", wait_reason=reason))
    assert task.wait_reason == "UNKNOWN"
    kind = blackboard_pb2.WriterKind.ValueType(NEWER)
    entry = blackboard_pb2.Entry(writer=blackboard_pb2.Writer(kind=kind))
    assert entry_of(entry, None).writer_kind is WriterKind.UNKNOWN


def test_a_number_that_says_nothing_has_no_word() -> None:
    assert word_of(run_pb2.WaitReason, 0) == ""
    assert word_of(run_pb2.WaitReason, run_pb2.WAIT_REASON_BACKOFF) == "BACKOFF"
