"""What runs left behind and what they used, over real views: pages, filters, sums, refusals."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from stretto.common.v1.lease_pb2 import LeaseToken, Position
from stretto.common.v1.payload_pb2 import Artifact, BlobRef, Payload
from stretto.run.v1 import plan_pb2, run_pb2
from stretto.run.v1 import run_service_pb2 as pb
from stretto.work.v1 import work_pb2
from stretto_sdk.blobs import BlobClient

from tests.integration.kernel.serving import (
    IDS,
    NOBODYS,
    PARTITION,
    Served,
    StreamWorker,
    reason_of,
    task,
)
from tests.waiting import until

FILES = ("a/1.txt", "a/2.txt", "b.png")


def task_of(token: LeaseToken) -> str:
    return token.work_item.rpartition("/")[2]


async def assigned(worker: StreamWorker, *names: str) -> dict[str, LeaseToken]:
    """The newest tokens of tasks, once it has been given all of them."""

    def newest() -> dict[str, LeaseToken]:
        return {task_of(each.token): each.token for each in worker.assignments}

    await until(lambda: newest().keys() >= set(names))
    return newest()


async def put_file(kernel: Served) -> BlobRef:
    return await BlobClient(kernel.channel).put("default", b"what it says")


async def artifacts_of(kernel: Served, name: str, **asked: Any) -> list[run_pb2.TaskArtifact]:
    """Every artifact that is asked for, by pages of two."""
    found: list[run_pb2.TaskArtifact] = []
    request = pb.ListArtifactsRequest(parent=name, page_size=2, **asked)
    while True:
        page = await kernel.runs.ListArtifacts(request)
        assert len(page.artifacts) <= 2
        found += page.artifacts
        request.page_token = page.next_page_token
        if not page.next_page_token:
            return found


async def usage_of(kernel: Served, parent: str, **asked: Any) -> pb.GetUsageResponse:
    return await kernel.runs.GetUsage(pb.GetUsageRequest(parent=parent, **asked))


def shares(found: Any) -> dict[str, tuple[int, int, int]]:
    return {
        each.name: (each.usage.attempt_count, each.usage.running_count, each.usage.succeeded_count)
        for each in found
    }


@pytest.mark.usefixtures("projector")
async def test_artifacts_are_listed_by_pages_and_filters_at_once(kernel: Served) -> None:
    worker = StreamWorker(kernel.channel)
    blob = await put_file(kernel)
    run = (await kernel.start(task("y"), task("x"))).run
    tokens = await assigned(worker, "x", "y")
    for name in ("y", "x"):
        files = [
            Artifact(name=file, blob=blob, content_type="image/png" if "png" in file else "")
            for file in FILES
        ]
        succeeded = work_pb2.OutcomeSucceeded(result=Payload(json="1"), artifacts=files)
        worker.say(outcomes=[work_pb2.Outcome(token=tokens[name], succeeded=succeeded)])
    await until(lambda: len(worker.receipts) == 2)
    # Nobody says which position: what was acknowledged is in it.
    found = await artifacts_of(kernel, run.name)
    assert [(each.task, each.artifact.name) for each in found] == [
        (name, file) for name in ("x", "y") for file in FILES
    ]
    assert {each.artifact.blob.digest for each in found} == {blob.digest}
    assert {(each.task, each.epoch) for each in found} == {("x", 1), ("y", 1)}
    assert {each.artifact.content_type for each in found} == {"", "image/png"}
    events = (await kernel.log.read_stream(run.name.rpartition("/")[2])).events  # type: ignore[arg-type]
    assert {each.version for each in found} <= {event.version for event in events}
    by_filter = {
        'task = "x"': [("x", file) for file in FILES],
        'name = "b.png"': [("x", "b.png"), ("y", "b.png")],
        'content_type = "image/png" AND task = "y"': [("y", "b.png")],
        'task = "none"': [],
    }
    for text, expected in by_filter.items():
        listed = await artifacts_of(kernel, run.name, filter=text)
        assert [(each.task, each.artifact.name) for each in listed] == expected, text
    await worker.cut()


@pytest.mark.usefixtures("projector")
async def test_what_cannot_be_listed_is_refused(kernel: Served) -> None:
    run = (await kernel.start(task("x"))).run
    foreign = run.name.replace("namespaces/default", "namespaces/other")
    for name in (NOBODYS, foreign):
        listed = kernel.runs.ListArtifacts(pb.ListArtifactsRequest(parent=name))
        assert await reason_of(listed) == "NOT_FOUND"
        assert await reason_of(usage_of(kernel, name)) == "NOT_FOUND"
    wrong: list[dict[str, Any]] = [
        {"filter": "task = x"},
        {"filter": 'task < "x"'},
        {"filter": 'size = "1"'},
        {"filter": 'task = ""'},
        {"page_size": -1},
        {"page_token": "nonsense"},
    ]
    for asked in wrong:
        listed = kernel.runs.ListArtifacts(pb.ListArtifactsRequest(parent=run.name, **asked))
        assert await reason_of(listed) == "INVALID_ARGUMENT", asked
    for parent in ("namespaces/default/runs/x", "namespaces/A B", "runs/1"):
        assert await reason_of(usage_of(kernel, parent)) == "INVALID_ARGUMENT", parent


async def test_without_a_projector_it_is_said_that_the_view_is_behind(kernel: Served) -> None:
    run = (await kernel.start(task("x"))).run
    listed = kernel.runs.ListArtifacts(pb.ListArtifactsRequest(parent=run.name))
    assert await reason_of(listed) == "VIEW_BEHIND"
    assert await reason_of(usage_of(kernel, run.name)) == "VIEW_BEHIND"
    empty = await usage_of(kernel, "namespaces/default")
    assert not empty.total.attempt_count and not empty.HasField("view_position")


@pytest.mark.usefixtures("projector")
async def test_usage_is_added_up_by_queue_and_worker_of_a_run_and_of_all(kernel: Served) -> None:
    worker = StreamWorker(kernel.channel)
    once = plan_pb2.RetryPolicy(max_attempts=1)
    run = (await kernel.start(task("good"), task("bad", retry=once), task("open"))).run
    tokens = await assigned(worker, "good", "bad", "open")
    released = work_pb2.Outcome(token=tokens["open"], released=work_pb2.OutcomeReleased())
    failed = work_pb2.Outcome(token=tokens["bad"])
    failed.failed.reason = "BROKEN"
    worker.succeed(tokens["good"])
    worker.say(outcomes=[released, failed])
    await until(lambda: len(worker.receipts) == 3)
    await until(lambda: len(worker.assignments) == 4)  # What was given back is leased again.
    found = await usage_of(kernel, run.name)
    assert shares(found.queues) == {"default": (4, 1, 1)}
    assert shares(found.workers) == {"w1": (4, 1, 1)}
    total = found.total
    assert found.workers[0].usage == found.queues[0].usage == total
    held, succeeded = total.held.ToNanoseconds(), total.succeeded_held.ToNanoseconds()
    assert 0 < succeeded < held
    other = StreamWorker(kernel.channel, worker_id="w2", queues=("slow",))
    await kernel.start(task("good", queue="slow"))
    await assigned(other, "good")
    newest = Position(partition=PARTITION, number=await kernel.log.position())
    of_all = await usage_of(kernel, "", min_position=newest)
    assert shares(of_all.workers) == {"w1": (4, 1, 1), "w2": (1, 1, 0)}
    assert shares(of_all.queues) == {"default": (4, 1, 1), "slow": (1, 1, 0)}
    assert of_all.queues[0].name == "default", "the longest held first"
    assert of_all.total.attempt_count == 5
    nothing = await usage_of(kernel, "namespaces/other")
    assert nothing.total == run_pb2.Usage(held=Duration(), succeeded_held=Duration())
    assert not nothing.queues and not nothing.workers
    await worker.cut()
    await other.cut()


@pytest.mark.usefixtures("projector")
async def test_what_a_killed_run_held_is_counted_once(kernel: Served) -> None:
    worker = StreamWorker(kernel.channel)
    run = (await kernel.start(task("a"), task("b"))).run
    await assigned(worker, "a", "b")
    for count in (2, 4):
        kill = pb.KillRunRequest(name=run.name, request_id=IDS.uuid7())
        await kernel.runs.KillRun(kill)
        found = await usage_of(kernel, run.name)
        assert shares(found.workers) == {"w1": (count, 0, 0)}
        attempts = await kernel.runs.ListAttempts(pb.ListAttemptsRequest(parent=run.name))
        spans = [
            each.end_time.ToNanoseconds() - each.lease_time.ToNanoseconds()
            for each in attempts.attempts
        ]
        assert len(spans) == count
        assert found.total.held.ToNanoseconds() == sum(spans)
        if count == 2:
            retry = pb.RetryRunRequest(name=run.name, request_id=IDS.uuid7())
            await kernel.runs.RetryRun(retry)
            await until(lambda: len(worker.assignments) == 4)
    await worker.cut()


@pytest.mark.usefixtures("projector")
async def test_a_lease_ended_by_the_end_of_a_cancels_grace_is_counted_once(kernel: Served) -> None:
    worker = StreamWorker(kernel.channel)
    run = (await kernel.start(task("a"), task("tidy", clean_up=True))).run
    await assigned(worker, "a")
    cancel = pb.CancelRunRequest(name=run.name, request_id=IDS.uuid7())
    cancel.grace.FromMilliseconds(1)
    await kernel.runs.CancelRun(cancel)
    tokens = await assigned(worker, "tidy")
    found = await usage_of(kernel, run.name)
    assert shares(found.workers) == {"w1": (2, 1, 0)}, "its grace is over, the clean-up goes on"
    held_ns = found.total.held.ToNanoseconds()
    assert held_ns > 0
    assert task_of(tokens["tidy"]) == "tidy"
    await kernel.runs.KillRun(pb.KillRunRequest(name=run.name, request_id=IDS.uuid7()))
    found = await usage_of(kernel, run.name)
    assert shares(found.workers) == {"w1": (2, 0, 0)}
    assert found.total.held.ToNanoseconds() > held_ns
    await worker.cut()
