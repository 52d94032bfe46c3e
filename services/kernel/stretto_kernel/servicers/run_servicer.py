"""RunService: request to command to answer. Rules live in the domain, parsing in `run_requests`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any, TypeVar

from google.protobuf.message import Message
from stretto.common.v1.lease_pb2 import Position
from stretto.run.v1 import run_service_pb2 as pb
from stretto.run.v1.run_service_pb2_grpc import RunServiceServicer
from stretto_core.clock import NS_PER_S
from stretto_core.rpc.call import current_call

from stretto_kernel.app.admission import Admitted
from stretto_kernel.app.follow_limits import FollowLimits
from stretto_kernel.app.in_parts import in_parts
from stretto_kernel.app.run_ends import RunEnds
from stretto_kernel.app.start_batch import start_runs
from stretto_kernel.app.watching import WatcherGate, watch_run
from stretto_kernel.domain.run.parts import has_parts
from stretto_kernel.kernel import Kernel
from stretto_kernel.owned_partition import OwnedPartition
from stretto_kernel.projections.past_runs import PastRuns
from stretto_kernel.servicers import run_batches as batches
from stretto_kernel.servicers import run_requests as parse
from stretto_kernel.servicers.as_of import parse_as_of
from stretto_kernel.servicers.asked import Asked, asked_now
from stretto_kernel.servicers.change_listing import ChangeListing
from stretto_kernel.servicers.fields import DEFAULT_NAMESPACE, Fields
from stretto_kernel.servicers.run_listing import RunListing
from stretto_kernel.servicers.task_listing import TaskListing

Response = TypeVar("Response")
Read = TypeVar("Read", bound=Message)

RETRY_STEP_COUNT = 500
"""Some milliseconds: see `domain.run.reopening`."""
ANSWER_S = 0.25
"""A wait ends so long before its caller's deadline."""
_DEFAULT_PARENT = f"namespaces/{DEFAULT_NAMESPACE}"


class RunServicer(RunServiceServicer):
    """Serves runs of the partition a kernel owns.

    retry_step_count: how much of a large run is re-opened by one fact.
    watchers: counts who watches.
    """

    def __init__(
        self,
        kernel: Kernel,
        listing: RunListing,
        past: PastRuns,
        *,
        retry_step_count: int = RETRY_STEP_COUNT,
        watchers: WatcherGate | None = None,
    ) -> None:
        self._watchers = watchers or WatcherGate(FollowLimits().watchers_max)
        self._retry_step_count = retry_step_count
        self._kernel = kernel
        self._listing = listing
        self._clock = kernel.ports.clock
        self._partition_name = kernel.ports.log.partition
        self._past = past
        self._changes = ChangeListing(past)
        self._tasks = TaskListing(past, lambda: kernel.partition.calls, self._partition_name)

    async def StartRun(self, request: pb.StartRunRequest, context: Any) -> pb.StartRunResponse:
        """See the contract."""
        with self._admit(request.parent, request):
            plan = None
            if has_parts(request.task_graph.tasks):
                plan = await in_parts(parse.encoding_plan(request))
            start = parse.parse_start(request, self._asked(), plan)
            calls = self._kernel.partition.calls
            if start.validate_only:
                run = await calls.validate_start(start.namespace, start.command, start.caller)
                return pb.StartRunResponse(run=run)
            run, number = await calls.start_run(start.namespace, start.command, start.caller)
        if start.wait_ns:
            run_id = calls.run_id_of(start.namespace, start.command.request_id)
            calls = self._kernel.partition.calls
            run, number = await calls.wait_ended(
                start.namespace, run_id, _within_deadline(start.wait_ns)
            )
        return pb.StartRunResponse(run=run, position=self._position(number))

    async def StartRuns(self, request: pb.StartRunsRequest, context: Any) -> pb.StartRunsResponse:
        """See the contract."""
        starts = batches.parse_starts(request, self._asked())
        with self._admit(_first_parent(request), request):
            outcomes = await start_runs(self._kernel.partition.calls, starts)
        return batches.to_results(outcomes, self._partition_name)

    async def AwaitRuns(
        self, request_iterator: AsyncIterator[pb.AwaitRunsRequest], context: Any
    ) -> AsyncIterator[pb.AwaitRunsResponse]:
        """See the contract."""
        owned: OwnedPartition = self._kernel.partition
        ends = RunEnds(owned.host, owned.calls)
        hearing = asyncio.create_task(batches.hear_names(request_iterator, ends), name="await-runs")
        try:
            while told := await ends.next():
                yield batches.to_ends(told, self._partition_name)
        finally:
            hearing.cancel()
            ends.close()

    async def GetRun(self, request: pb.GetRunRequest, context: Any) -> pb.GetRunResponse:
        """See the contract."""
        fields = Fields()
        namespace, run_id = fields.run("name", request.name)
        moment = parse_as_of(fields, request.as_of, self._partition_name)
        fields.refuse("the request")
        if moment is not None:
            past = pb.GetRunResponse(run=await self._past.get_run(namespace, run_id, moment))
            return await self._revealed(past)
        run, _ = await self._kernel.partition.calls.get_run(namespace, run_id)
        return pb.GetRunResponse(run=run)

    async def ListRuns(self, request: pb.ListRunsRequest, context: Any) -> pb.ListRunsResponse:
        """See the contract."""
        return await self._revealed(await self._listing.list_runs(request))

    async def ListTasks(self, request: pb.ListTasksRequest, context: Any) -> pb.ListTasksResponse:
        """See the contract."""
        return await self._revealed(await self._tasks.list_tasks(request))

    async def ListRunChanges(
        self, request: pb.ListRunChangesRequest, context: Any
    ) -> pb.ListRunChangesResponse:
        """See the contract."""
        return await self._revealed(await self._changes.list_changes(request))

    async def ListAttempts(
        self, request: pb.ListAttemptsRequest, context: Any
    ) -> pb.ListAttemptsResponse:
        """See the contract."""
        return await self._revealed(await self._listing.attempts.list_attempts(request))

    async def ListArtifacts(
        self, request: pb.ListArtifactsRequest, context: Any
    ) -> pb.ListArtifactsResponse:
        """See the contract."""
        return await self._revealed(await self._listing.artifacts.list_artifacts(request))

    async def GetUsage(self, request: pb.GetUsageRequest, context: Any) -> pb.GetUsageResponse:
        """See the contract."""
        return await self._listing.usage.get_usage(request)

    async def WatchRun(
        self, request: pb.WatchRunRequest, context: Any
    ) -> AsyncIterator[pb.WatchRunResponse]:
        """See the contract."""
        fields = Fields()
        namespace, run_id = fields.run("name", request.name)
        after_version = fields.count("after_version", request.after_version)
        fields.refuse("the request")
        owned: OwnedPartition = self._kernel.partition
        changes = watch_run(
            owned.host,
            owned.calls,
            self._clock,
            namespace=namespace,
            run_id=run_id,
            with_tasks=request.tasks,
            after_version=after_version,
        )
        with self._watchers.admit():
            async with aclosing(changes):
                async for run, tasks, version, ended in changes:
                    yield pb.WatchRunResponse(run=run, tasks=tasks, version=version, ended=ended)

    async def PauseRun(self, request: pb.PauseRunRequest, context: Any) -> pb.PauseRunResponse:
        """See the contract."""
        return await self._steer(parse.parse_pause(request, self._asked()), pb.PauseRunResponse)

    async def ResumeRun(self, request: pb.ResumeRunRequest, context: Any) -> pb.ResumeRunResponse:
        """See the contract."""
        return await self._steer(parse.parse_resume(request, self._asked()), pb.ResumeRunResponse)

    async def CancelRun(self, request: pb.CancelRunRequest, context: Any) -> pb.CancelRunResponse:
        """See the contract."""
        return await self._steer(parse.parse_cancel(request, self._asked()), pb.CancelRunResponse)

    async def KillRun(self, request: pb.KillRunRequest, context: Any) -> pb.KillRunResponse:
        """See the contract."""
        return await self._steer(parse.parse_kill(request, self._asked()), pb.KillRunResponse)

    async def ShredRun(self, request: pb.ShredRunRequest, context: Any) -> pb.ShredRunResponse:
        """See the contract."""
        asked = parse.parse_shred(request, self._asked())
        run, number = await self._kernel.partition.shredder.shred_run(
            asked.namespace, asked.run_id, asked.command, asked.caller
        )
        return pb.ShredRunResponse(run=run, position=self._position(number))

    async def AddTasks(self, request: pb.AddTasksRequest, context: Any) -> pb.AddTasksResponse:
        """See the contract."""
        with self._admit(request.name, request):
            tasks = await in_parts(parse.encoding_slice(request))
            slice_ = parse.parse_add_tasks(request, self._asked(), tasks)
            await asyncio.sleep(0)  # What was read in one stretch is judged in another.
            return await self._steer(slice_, pb.AddTasksResponse)

    async def RetryRun(self, request: pb.RetryRunRequest, context: Any) -> pb.RetryRunResponse:
        """See the contract."""
        with self._admit(request.name, request):
            steer = parse.parse_retry(request, self._asked(), step_count=self._retry_step_count)
            return await self._steer(steer, pb.RetryRunResponse)

    def _admit(self, name: str, request: Message) -> Admitted:
        """Count the call for its namespace, which its run or parent begins with."""
        namespace = name.partition("/runs/")[0] or _DEFAULT_PARENT
        return self._kernel.admission.admit(namespace, request.ByteSize())

    async def _revealed(self, response: Read) -> Read:
        """What views tell is as the log has it: decrypt it for the caller."""
        await self._kernel.ports.keys.reveal([response])
        return response

    async def _steer(self, steer: parse.Steer, response: Callable[..., Response]) -> Response:
        run, number = await self._kernel.partition.calls.steer_run(
            steer.namespace, steer.run_id, steer.command, steer.caller
        )
        return response(run=run, position=self._position(number))

    def _asked(self) -> Asked:
        return asked_now(self._clock)

    def _position(self, number: int) -> Position:
        return parse.position_of(self._partition_name, number)


def _first_parent(request: pb.StartRunsRequest) -> str:
    """Return the parent that a batch counts for: that of its first start."""
    return request.requests[0].parent if request.requests else ""


def _within_deadline(wait_ns: int) -> int:
    """Return how long to wait so that the answer still reaches a caller who named a deadline."""
    deadline_s = current_call().deadline_s
    if deadline_s is None:
        return wait_ns
    left_s = deadline_s - asyncio.get_running_loop().time() - ANSWER_S
    return min(wait_ns, max(0, int(left_s * NS_PER_S)))
