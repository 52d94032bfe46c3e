"""TaskLogService reads what attempts wrote; `append_logs` answers WorkService.AppendLogs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from stretto.tasklog.v1 import task_log_pb2, task_log_service_pb2
from stretto.tasklog.v1.task_log_service_pb2_grpc import TaskLogServiceServicer
from stretto.work.v1 import work_service_pb2
from stretto_core.errors import Exhausted, Refusal, Unavailable
from stretto_core.ids import RunId, TaskName

from stretto_kernel.dispatch.assignments import timestamp
from stretto_kernel.kernel import Kernel
from stretto_kernel.servicers.fields import Fields
from stretto_kernel.servicers.page_tokens import decode_token, encode_token, token_number
from stretto_kernel.tasklog.entries import Entry, Selection, Written
from stretto_kernel.tasklog.holder_logs import admit, check_limits
from stretto_kernel.tasklog.task_logs import Reading, TaskLogs

TASK_CHARACTERS_MAX = 1_000
TAIL_LINES_MAX = 100_000


class TaskLogServicer(TaskLogServiceServicer):
    """Serves the task logs of the partition a kernel owns."""

    def __init__(self, kernel: Kernel, task_logs: TaskLogs) -> None:
        self._kernel = kernel
        self._task_logs = task_logs

    async def ReadTaskLogs(
        self, request: task_log_service_pb2.ReadTaskLogsRequest, context: Any
    ) -> AsyncIterator[task_log_service_pb2.ReadTaskLogsResponse]:
        """See the contract."""
        reading = parse_reading(request)
        parts = self._task_logs.read(self._kernel.partition, reading)
        async with aclosing(parts):
            async for part in parts:
                yield task_log_service_pb2.ReadTaskLogsResponse(
                    entries=[_show(entry) for entry in part.entries],
                    cursor=_cursor(reading.selection.run_id, part.reached),
                    ended=part.ended,
                    missing_count=part.missing_count,
                )


async def append_logs(
    kernel: Kernel, task_logs: TaskLogs, request: work_service_pb2.AppendLogsRequest
) -> work_service_pb2.AppendLogsResponse:
    """See the contract of WorkService.AppendLogs."""
    check_limits(request.leases)
    partition = kernel.partition
    response = work_service_pb2.AppendLogsResponse()
    admitted: list[tuple[Written, work_service_pb2.AppendLogsResult]] = []
    for logs in request.leases:
        result = response.results.add()
        try:
            admitted.append((await admit(partition, logs), result))
        except (Unavailable, Exhausted):
            raise  # It is the kernel's state and not the lease's: all of it is to come again.
        except Refusal as refusal:
            result.status.CopyFrom(kernel.ports.to_status(refusal))
    truncated = await task_logs.append([written for written, _ in admitted])
    for (_, result), is_truncated in zip(admitted, truncated, strict=True):
        result.status.SetInParent()
        result.truncated = is_truncated
    return response


def parse_reading(request: task_log_service_pb2.ReadTaskLogsRequest) -> Reading:
    """Raises InvalidArgument with every violation."""
    fields = Fields()
    namespace, run_id = fields.run("run", request.run)
    task = fields.text("task", request.task, characters_max=TASK_CHARACTERS_MAX)
    attempt = fields.count("attempt", request.attempt)
    tail_line_count = fields.count("tail_line_count", request.tail_line_count)
    if attempt and not task:
        fields.wrong("attempt", "needs a task")
    if tail_line_count and request.cursor:
        fields.wrong("tail_line_count", "not with a cursor, which says where to begin")
    after_position = 0
    if request.cursor:
        of_run, number = decode_token("cursor", "tasklog", request.cursor, part_count=2)
        after_position = token_number("cursor", number)
        if of_run != run_id:
            fields.wrong("cursor", "is one of another run")
    fields.refuse("the request")
    return Reading(
        namespace=namespace,
        selection=Selection(run_id, TaskName(task), attempt),
        after_position=after_position,
        tail_line_count=min(tail_line_count, TAIL_LINES_MAX),
        follow=request.follow,
    )


def _cursor(run_id: RunId, position: int) -> str:
    return encode_token("tasklog", run_id, str(position))


def _show(entry: Entry) -> task_log_pb2.LogEntry:
    return task_log_pb2.LogEntry(
        position=entry.position,
        task=entry.lease.task,
        activation=entry.activation,
        attempt=entry.attempt,
        stream=entry.stream,
        time=timestamp(entry.time_ns),
        content=entry.content,
        dropped_bytes=entry.dropped_bytes,
        truncated=entry.truncated,
    )
