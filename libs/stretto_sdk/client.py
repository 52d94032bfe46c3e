"""The client of a Stretto suite: starts, follows, steers and reads runs.

Owns no state but its connection: everything it returns is what the kernel answered. Each mutating
call mints a request id (UUIDv7) and repeats the same request until it is answered or the retry
budget is spent, so that a restart of the kernel in between is invisible and nothing happens twice.
Made for one event loop. Spans of time are text ("30s"), timedelta, or seconds where named so.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from datetime import timedelta
from inspect import isawaitable
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from stretto.run.v1 import run_service_pb2 as pb
from stretto_core.ids.system import SystemIds

from stretto_sdk.blackboard import Blackboard
from stretto_sdk.client_audit import AuditCalls
from stretto_sdk.client_blobs import BlobReading, store_large
from stretto_sdk.client_calls import Calls
from stretto_sdk.client_history import LookingBack
from stretto_sdk.client_logs import AnyRun, id_of
from stretto_sdk.client_namespaces import NamespaceCalls
from stretto_sdk.client_pages import Pages
from stretto_sdk.client_queues import QueueCalls
from stretto_sdk.client_start import start_run
from stretto_sdk.client_steering import Steering
from stretto_sdk.client_views import ViewCalls
from stretto_sdk.client_workers import WorkerCalls
from stretto_sdk.durations import duration_of
from stretto_sdk.endpoint import Endpoint, find_endpoint
from stretto_sdk.errors import DeadlineExceeded, InvalidArgument, Unimplemented, not_succeeded
from stretto_sdk.moments import Moment
from stretto_sdk.plan import AnyPlan, form_of
from stretto_sdk.plan_form import payload_of
from stretto_sdk.runs import (
    Position,
    Run,
    RunChange,
    RunState,
    Task,
    change_of,
    run_of,
)

_WAIT_MAX = timedelta(seconds=60)
FROM_PLAN: Final = object()
"""Stands for the input of the plan itself, since None is an input."""


class Client(
    LookingBack,
    Steering,
    WorkerCalls,
    QueueCalls,
    NamespaceCalls,
    BlobReading,
    ViewCalls,
    AuditCalls,
):
    """A connection to a suite; use it as an async context manager.

    >>> async with Client() as client:
    ...     run = await client.start(Path("plan.json"), input={"who": "world"})
    ...     print(await client.result(run))

    address, token: as given, else STRETTO_ADDRESS and STRETTO_TOKEN, else what `stretto up` wrote
    into the data directory (`data_directory`, else STRETTO_DATA_DIR, else the default one).
    retry_budget: how long one call is repeated while the suite cannot be reached. A suite that can
    be reached and does not answer for 90 s ends the call with DeadlineExceeded.
    pages: lists a page at a time, where `list` and `tasks` read them whole.
    """

    def __init__(
        self,
        address: str | None = None,
        token: str | None = None,
        *,
        data_directory: Path | None = None,
        namespace: str = "default",
        retry_budget: timedelta = timedelta(seconds=30),
    ) -> None:
        self._endpoint: Endpoint = find_endpoint(address, token, data_directory=data_directory)
        self._parent = f"namespaces/{namespace}"
        self._namespace = namespace
        self._calls = Calls(self._endpoint, retry_budget=retry_budget)
        self._ids = SystemIds()
        self.pages = Pages(self._calls, self._parent)

    @property
    def address(self) -> str:
        """Where the suite is reached: host:port."""
        return self._endpoint.address

    @property
    def is_connected(self) -> bool:
        """Whether the suite is reached at this moment; False before the first call."""
        return self._calls.is_connected

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """End the connection; repeating is harmless."""
        await self._calls.close()

    def blackboard(self, run: AnyRun) -> Blackboard:
        """The blackboard of a run: what its tasks, and people, tell each other.

        >>> await client.blackboard(run).put("human/hint", "look into the cellar")

        Reads and writes raise NotFound for a run that is not there.
        """
        return Blackboard(lambda: self._calls.boards, self._name_of(run), new_id=self._ids.uuid7)

    async def start(
        self,
        plan: AnyPlan,
        *,
        input: object = FROM_PLAN,
        name: str = "",
        labels: Mapping[str, str] | None = None,
        request_id: str | None = None,
        wait: timedelta | None = None,
    ) -> Run:
        """Start a run; it is recorded when this returns.

        >>> run = await client.start(plan, input={"directory": "."}, labels={"team": "search"})

        input, name, labels: over those of the plan. wait: return once the run ended, or after
        that long (at most 60 s). request_id: give your own to make a start repeatable across
        processes: the same id and request always yield the same run. A plan of any size goes in.
        Raises InvalidArgument (every mistake named), AlreadyExists (that id, another request).
        """
        form = form_of(plan)
        given = form.input if input is FROM_PLAN else input
        request = pb.StartRunRequest(
            parent=self._parent,
            request_id=request_id or self._ids.uuid7(),
            task_graph=form.graph,
            input=None if given is None else payload_of(given, source="the input"),
            labels={**form.labels, **(labels or {})},
            display_name=name or form.name,
            wait_timeout=None if wait is None else duration_of(wait),
        )
        await store_large(self._calls.blobs, self._namespace, request)
        try:
            answer = await start_run(self._calls, request)
        except (InvalidArgument, Unimplemented) as refused:
            raise form.told(refused) from None
        return run_of(answer.run, answer.position)

    async def run(
        self,
        plan: AnyPlan,
        *,
        input: object = FROM_PLAN,
        name: str = "",
        labels: Mapping[str, str] | None = None,
    ) -> object:
        """Start a run, wait until it ends, return its output; a short one takes a single call.

        >>> report = await client.run(plan, input={"directory": "."})

        Raises what `start` and `result` raise.
        """
        started = await self.start(plan, input=input, name=name, labels=labels, wait=_WAIT_MAX)
        return await self.result(started)

    async def validate(self, plan: AnyPlan) -> None:
        """Have the kernel check a plan without starting it.

        >>> await client.validate(Path("plan.json"))

        Raises InvalidArgument with every mistake in it.
        """
        form = form_of(plan)
        request = pb.StartRunRequest(
            parent=self._parent,
            request_id=self._ids.uuid7(),
            task_graph=form.graph,
            validate_only=True,
        )
        await store_large(self._calls.blobs, self._namespace, request)
        try:
            await start_run(self._calls, request)
        except (InvalidArgument, Unimplemented) as refused:
            raise form.told(refused) from None

    async def result(self, run: AnyRun, *, timeout: timedelta | None = None) -> object:
        """Wait until the run ends and return its output.

        >>> report = await client.result(run, timeout=timedelta(minutes=10))

        Raises RunFailed, RunCancelled or RunKilled when it ended otherwise; DeadlineExceeded when
        `timeout` passed first (the run goes on; ask again); NotFound.
        """
        ended = await self.wait(run, timeout=timeout)
        if ended.state is not RunState.SUCCEEDED:
            raise not_succeeded(ended)
        return await self.fetch(ended.output)

    async def wait(
        self,
        run: AnyRun,
        *,
        timeout: timedelta | None = None,
        on_change: Callable[[RunChange], object] | None = None,
    ) -> Run:
        """Wait until the run ends, however, and return it.

        >>> ended = await client.wait(run, on_change=lambda change: print(change.run.tasks))

        on_change: called with the run as it is and with each change; later ones wait for it.
        Raises DeadlineExceeded when `timeout` passed first, NotFound.
        """
        if isinstance(run, Run) and run.state.ended:
            return run
        try:
            async with asyncio.timeout(
                None if timeout is None else timeout.total_seconds()
            ) as limit:
                if on_change is None:
                    ended = await self._calls.ends.wait(self._name_of(run))
                    return run_of(ended.ended, ended.position)
                async with aclosing(self.watch(run)) as changes:
                    async for change in changes:
                        heard = on_change(change)
                        if isawaitable(heard):  # A coroutine function, or it crosses to a thread.
                            await heard
                        if change.ended:
                            return change.run
        except TimeoutError:
            if not limit.expired():
                raise  # It is `on_change` that raised it.
            raise DeadlineExceeded(f"run {id_of(run)} has not ended in time") from None
        raise AssertionError("a watch ends with the run, or raises")

    async def watch(
        self, run: AnyRun, *, tasks: bool = False, after_version: int = 0
    ) -> AsyncGenerator[RunChange, None]:
        """Yield the run as it is, then each change, until it has ended.

        >>> async for change in client.watch(run, tasks=True):
        ...     print(change.run.tasks.succeeded, "of", change.run.tasks.total)

        tasks: also give the tasks changed since the step before (all of them first, or those
        changed after `after_version`). Goes on by itself after a broken connection.
        """
        request = pb.WatchRunRequest(
            name=self._name_of(run), tasks=tasks, after_version=after_version
        )
        async with aclosing(self._calls.stream(self._calls.runs.WatchRun, request)) as answers:
            async for answer in answers:
                request.after_version = answer.version
                yield change_of(answer)
                if answer.ended:
                    return

    async def get(self, run: AnyRun, *, as_of: Moment | None = None) -> Run:
        """Read one run as of its newest event, or as it was at an earlier moment.

        >>> print((await client.get(run_id)).state)
        >>> print((await client.get(run_id, as_of=40)).state)

        as_of: a version, an instant, or the position of a write. Raises NotFound, OutOfRange (it
        has no such version yet, or had not begun then).
        """
        return await self._run(run, as_of)

    async def tasks(
        self, run: AnyRun, filter: str = "", *, as_of: Moment | None = None
    ) -> Sequence[Task]:
        """Read all tasks of a run, in the order they came to be, or those that a filter admits.

        >>> failed = await client.tasks(run, "state = FAILED")

        as_of: as they were then, as of `get`. With a filter they come from a view that trails the
        record by moments. Raises NotFound, OutOfRange, InvalidArgument (a filter it cannot read).
        """
        return [task async for task in self.pages.all_tasks(self._name_of(run), as_of, filter)]

    async def list(
        self,
        filter: str = "",
        *,
        after: Position | None = None,
    ) -> AsyncGenerator[Run, None]:
        """Yield runs, newest first, without their input and output.

        >>> async for run in client.list('state = FAILED AND labels.team = "search"'):
        ...     print(run.run_id, run.failure)

        after: only answer once the view holds that position (`run.position` of your own write).
        Raises InvalidArgument for a filter it cannot read.
        """
        async with aclosing(self.pages.all_runs(filter, after)) as runs:
            async for run in runs:
                yield run
