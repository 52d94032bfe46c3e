"""How the client reads lists: a page at a time, or all of it page after page."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass

from stretto.common.v1.lease_pb2 import Position as PositionMessage
from stretto.run.v1 import run_service_pb2 as pb

from stretto_sdk.artifacts import TaskArtifact, task_artifact_of
from stretto_sdk.client_calls import Calls
from stretto_sdk.moments import Moment, as_of_message
from stretto_sdk.runs import Position, Run, Task, run_of, task_of

PAGE_SIZE_MAX = 1_000
"""The kernel clamps what is larger."""
_RUNS_PAGE_SIZE = 100


@dataclass(frozen=True, slots=True)
class RunsPage:
    """Some runs, newest first, without input and output; the next page's token, "" at the end.

    view_position: how far the list had followed the log at least; None while there is none.
    """

    runs: Sequence[Run]
    next_page_token: str
    view_position: Position | None = None


@dataclass(frozen=True, slots=True)
class TasksPage:
    """Some tasks of a run in the order they came to be; the next page's token, "" at the end."""

    tasks: Sequence[Task]
    next_page_token: str


@dataclass(frozen=True, slots=True)
class ArtifactsPage:
    """Some files that a run left behind, by task and name; the next page's token, "" at the end."""

    artifacts: Sequence[TaskArtifact]
    next_page_token: str


class Pages:
    """The lists of one namespace; `Client.pages`. parent: namespaces/*."""

    def __init__(self, calls: Calls, parent: str) -> None:
        self._calls = calls
        self._parent = parent

    async def runs(self, filter: str = "", *, page_size: int = 0, page_token: str = "") -> RunsPage:
        """Read some runs, newest first, and the token of those after them.

        >>> page = await client.pages.runs("state = FAILED", page_size=20)

        Raises InvalidArgument (a filter it cannot read, a token that is not ours).
        """
        return await self._runs(
            pb.ListRunsRequest(
                parent=self._parent, filter=filter, page_size=page_size, page_token=page_token
            )
        )

    async def tasks(
        self,
        run_id: str,
        filter: str = "",
        *,
        as_of: Moment | None = None,
        page_size: int = 0,
        page_token: str = "",
    ) -> TasksPage:
        """Read some tasks of a run in the order they came to be, and the token of those after.

        >>> page = await client.pages.tasks(run.run_id, "state = FAILED", page_size=100)

        as_of: as they were then. Raises NotFound, OutOfRange (it had not begun then),
        InvalidArgument (a filter it cannot read, a token that is not ours).
        """
        return await self._tasks(
            pb.ListTasksRequest(
                parent=f"{self._parent}/runs/{run_id}",
                filter=filter,
                as_of=as_of_message(as_of),
                page_size=page_size,
                page_token=page_token,
            )
        )

    async def artifacts(
        self, run_id: str, filter: str = "", *, page_size: int = 0, page_token: str = ""
    ) -> ArtifactsPage:
        """Read some files that a run left behind, by task and name, and the token of those after.

        >>> page = await client.pages.artifacts(run.run_id, 'name = "report.txt"', page_size=100)

        Raises NotFound, InvalidArgument (a filter it cannot read, a token that is not ours).
        """
        return await self._artifacts(
            pb.ListArtifactsRequest(
                parent=f"{self._parent}/runs/{run_id}",
                filter=filter,
                page_size=page_size,
                page_token=page_token,
            )
        )

    async def all_runs(self, filter: str, after: Position | None) -> AsyncGenerator[Run, None]:
        """Yield every run that a filter admits; the view first reaches `after`."""
        request = pb.ListRunsRequest(parent=self._parent, filter=filter, page_size=_RUNS_PAGE_SIZE)
        if after is not None:
            position = PositionMessage(partition=after.partition, number=after.number)
            request.min_position.CopyFrom(position)
        more = True
        while more:
            page = await self._runs(request)
            for each in page.runs:
                yield each
            request.page_token = page.next_page_token
            more = bool(page.next_page_token)

    async def all_tasks(
        self, name: str, as_of: Moment | None = None, filter: str = ""
    ) -> AsyncGenerator[Task, None]:
        """Yield every task of a run, or all that a filter admits. name: namespaces/*/runs/*."""
        request = pb.ListTasksRequest(
            parent=name, page_size=PAGE_SIZE_MAX, as_of=as_of_message(as_of), filter=filter
        )
        more = True
        while more:
            page = await self._tasks(request)
            for each in page.tasks:
                yield each
            request.page_token = page.next_page_token
            more = bool(page.next_page_token)

    async def all_artifacts(self, name: str, filter: str) -> AsyncGenerator[TaskArtifact, None]:
        """Yield every artifact of a run that a filter admits. name: namespaces/*/runs/*."""
        request = pb.ListArtifactsRequest(parent=name, filter=filter, page_size=PAGE_SIZE_MAX)
        more = True
        while more:
            page = await self._artifacts(request)
            for each in page.artifacts:
                yield each
            request.page_token = page.next_page_token
            more = bool(page.next_page_token)

    async def _runs(self, request: pb.ListRunsRequest) -> RunsPage:
        answer = await self._calls.unary(self._calls.runs.ListRuns, request)
        seen = answer.view_position
        position = Position(partition=seen.partition, number=seen.number) if seen.number else None
        return RunsPage([run_of(each) for each in answer.runs], answer.next_page_token, position)

    async def _tasks(self, request: pb.ListTasksRequest) -> TasksPage:
        answer = await self._calls.unary(self._calls.runs.ListTasks, request)
        return TasksPage([task_of(each) for each in answer.tasks], answer.next_page_token)

    async def _artifacts(self, request: pb.ListArtifactsRequest) -> ArtifactsPage:
        answer = await self._calls.unary(self._calls.runs.ListArtifacts, request)
        return ArtifactsPage(
            [task_artifact_of(each) for each in answer.artifacts], answer.next_page_token
        )
