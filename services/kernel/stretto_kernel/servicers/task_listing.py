"""ListTasks: as they are, from the run in memory; as they were, or filtered, from views.

Terms of a filter: `state = NAME`, `queue = "TEXT"`, `executor = "TEXT"`, `clean_up = true`. The
first page from views fixes the version that all pages show: it is in their tokens.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from google.protobuf.field_mask_pb2 import FieldMask
from stretto.run.v1 import run_pb2
from stretto.run.v1 import run_service_pb2 as pb
from stretto_core.ids import Namespace, Partition, RunId

from stretto_kernel.app.moments import AtVersion, Moment
from stretto_kernel.app.page_bytes import PAGE_BYTES_MAX, count_within
from stretto_kernel.app.run_calls import RunCalls
from stretto_kernel.projections.past_runs import PastRuns, TaskQuery, TasksThen
from stretto_kernel.servicers.as_of import parse_as_of
from stretto_kernel.servicers.fields import Fields
from stretto_kernel.servicers.filter_terms import filter_terms
from stretto_kernel.servicers.masks import masked
from stretto_kernel.servicers.page_tokens import decode_token, encode_token, token_number
from stretto_kernel.servicers.view_positions import least_position

PAGE_DEFAULT = 100
PAGE_MAX = 1_000

_PLAIN, _THEN = "tasks", "tasks then"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """A parsed request. moment: None = as it is. from_views: it needs what only views can tell."""

    namespace: Namespace
    query: TaskQuery
    moment: Moment | None
    size: int
    least_position: int
    mask: FieldMask

    @property
    def from_views(self) -> bool:
        return self.moment is not None or self.query.is_narrow or bool(self.least_position)


class TaskListing:
    """Answers ListTasks of one partition. calls: the runs of the ownership at hand."""

    def __init__(self, past: PastRuns, calls: Callable[[], RunCalls], partition: Partition) -> None:
        self._past = past
        self._calls = calls
        self._partition = partition

    async def list_tasks(self, request: pb.ListTasksRequest) -> pb.ListTasksResponse:
        """Return a page. Raises InvalidArgument, RunNotFound, OutOfRange, ViewBehind, StoreDown."""
        asked = self._parse(request)
        if not asked.from_views:
            return await self._list_plain(asked, request.page_token)
        if request.page_token:
            parts = decode_token("page_token", _THEN, request.page_token, part_count=3)
            version, judged_ns, after = (token_number("page_token", part) for part in parts)
            query = replace(asked.query, judged_ns=judged_ns, after=after)
            found = self._past.list_tasks(
                asked.namespace, query, AtVersion(version), count_max=asked.size
            )
        elif asked.moment is not None:
            found = self._past.list_tasks(
                asked.namespace, asked.query, asked.moment, count_max=asked.size
            )
        else:
            found = self._past.list_newest(
                asked.namespace, asked.query, asked.least_position, count_max=asked.size
            )
        return await _page(found, asked.mask)

    async def _list_plain(self, asked: _Asked, page_token: str) -> pb.ListTasksResponse:
        first = 0
        if page_token:
            (index,) = decode_token("page_token", _PLAIN, page_token, part_count=1)
            first = token_number("page_token", index)
        page = await self._calls().list_tasks(
            asked.namespace, asked.query.run_id, first_index=first, count_max=asked.size
        )
        token = "" if page.next_index is None else encode_token(_PLAIN, str(page.next_index))
        tasks = [masked(task, asked.mask) for task in page.tasks]
        return pb.ListTasksResponse(tasks=tasks, next_page_token=token, version=page.version)

    def _parse(self, request: pb.ListTasksRequest) -> _Asked:
        fields = Fields()
        namespace, run_id = fields.run("parent", request.parent)
        size = fields.page_size(request.page_size, default=PAGE_DEFAULT, largest=PAGE_MAX)
        query = parse_filter(fields, run_id, request.filter)
        words = request.order_by.split()
        if words not in ([], ["creation"], ["creation", "desc"]):
            fields.wrong("order_by", 'must be "creation" or "creation desc"')
        moment = parse_as_of(fields, request.as_of, self._partition)
        least = least_position(fields, request.min_position, self._partition)
        mask = fields.mask("read_mask", request.read_mask, run_pb2.Task.DESCRIPTOR)
        fields.refuse("the request")
        return _Asked(
            namespace=namespace,
            query=replace(query, newest_first=words == ["creation", "desc"]),
            moment=moment,
            size=size,
            least_position=least,
            mask=mask,
        )


def parse_filter(fields: Fields, run_id: RunId, text: str) -> TaskQuery:
    """Return what the filter asks for, noting what is wrong with it."""
    query = TaskQuery(run_id=run_id)
    for name, comparison, value, quoted in filter_terms(
        fields, text, "state|queue|executor|clean_up"
    ):
        if comparison != "=":
            fields.wrong("filter", f"{name} cannot be compared by {comparison}")
        elif name == "state":
            query = replace(query, state=_state(fields, value))
        elif name == "clean_up":
            if value not in ("true", "false"):
                fields.wrong("filter", "clean_up must equal true or false")
            query = replace(query, clean_up=value == "true")
        elif not quoted or not value:
            fields.wrong("filter", f'{name} must equal "TEXT"')
        elif name == "queue":
            query = replace(query, queue=value)
        else:
            query = replace(query, executor=value)
    return query


def _state(fields: Fields, value: str) -> run_pb2.TaskState.ValueType | None:
    name = f"TASK_STATE_{value.removeprefix('TASK_STATE_')}"
    for known, code in run_pb2.TaskState.items():
        if known == name and code:
            return code
    fields.wrong("filter", f"{value[:40]} is no state of a task")
    return None


async def _page(found: Awaitable[TasksThen], mask: FieldMask) -> pb.ListTasksResponse:
    version, judged_ns, listed, more = await found
    tasks = [masked(task, mask) for _, task in listed]
    shown_count = count_within((task.ByteSize() for task in tasks), PAGE_BYTES_MAX)
    token = ""
    if more or shown_count < len(tasks):
        last = listed[shown_count - 1][0]
        token = encode_token(_THEN, str(version), str(judged_ns), str(last))
    return pb.ListTasksResponse(tasks=tasks[:shown_count], next_page_token=token, version=version)
