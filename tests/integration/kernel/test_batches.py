"""StartRuns and AwaitRuns over real gRPC on a real PostgreSQL."""

from __future__ import annotations

from collections.abc import AsyncIterator

from google.protobuf.duration_pb2 import Duration
from stretto.run.v1 import plan_pb2, run_pb2
from stretto.run.v1 import run_service_pb2 as pb
from stretto_core.rpc.status import from_status

from tests.integration.kernel.serving import IDS, Served, StreamWorker, reason_of, task
from tests.waiting import until


def a_start(request_id: str = "", **more: object) -> pb.StartRunRequest:
    graph = plan_pb2.TaskGraph(tasks=[task("a")])
    return pb.StartRunRequest(request_id=request_id or IDS.uuid7(), task_graph=graph, **more)  # type: ignore[arg-type]


async def test_runs_are_started_and_awaited_together(kernel: Served) -> None:
    worker = StreamWorker(kernel.channel, credit_count=100)
    requests = [a_start() for _ in range(50)]
    answer = await kernel.runs.StartRuns(pb.StartRunsRequest(requests=requests))
    names = [result.started.run.name for result in answer.results]
    assert len(set(names)) == 50
    assert all(result.started.position.number for result in answer.results)
    again = await kernel.runs.StartRuns(pb.StartRunsRequest(requests=requests))
    assert [result.started.run.name for result in again.results] == names

    async def in_parts() -> AsyncIterator[pb.AwaitRunsRequest]:
        yield pb.AwaitRunsRequest(names=names[:20])
        yield pb.AwaitRunsRequest(names=[*names[20:], "runs/none", names[0]])

    await until(lambda: len(worker.assignments) == 50)
    for assignment in worker.assignments:
        worker.succeed(assignment.token)
    ended: dict[str, run_pb2.Run] = {}
    refused = {}
    async for message in kernel.runs.AwaitRuns(in_parts()):
        for one in message.runs:
            if one.HasField("ended"):
                assert one.name not in ended, "each end is told once"
                assert one.position.number
                ended[one.name] = one.ended
            else:
                refused[one.name] = from_status(one.refused).reason_word
    assert set(ended) == set(names)
    assert {run.state for run in ended.values()} == {run_pb2.RUN_STATE_SUCCEEDED}
    assert refused == {"runs/none": "INVALID_ARGUMENT"}
    await worker.cut()


async def test_what_belongs_to_one_start_alone_is_refused_in_its_place(kernel: Served) -> None:
    alone = [a_start(wait_timeout=Duration(seconds=1)), a_start(validate_only=True)]
    answer = await kernel.runs.StartRuns(pb.StartRunsRequest(requests=[*alone, a_start()]))
    fields = [
        [violation.field for violation in from_status(result.refused).violations]  # type: ignore[attr-defined]
        for result in answer.results[:2]
    ]
    assert fields == [["wait_timeout"], ["validate_only"]]
    assert answer.results[2].HasField("started")


async def test_calls_that_are_wrong_as_a_whole(kernel: Served) -> None:
    for requests in ([], [a_start()] * 501):
        call = kernel.runs.StartRuns(pb.StartRunsRequest(requests=requests))
        assert await reason_of(call) == "INVALID_ARGUMENT"

    async def naming(names: list[str]) -> AsyncIterator[pb.AwaitRunsRequest]:
        yield pb.AwaitRunsRequest(names=names)

    async def read(names: list[str]) -> None:
        async for _ in kernel.runs.AwaitRuns(naming(names)):
            pass

    for names in (["x"] * 1_001, ["x" * 513]):
        assert await reason_of(read(names)) == "INVALID_ARGUMENT"
    await read(["x" * 512])
