"""The part of the client that looks back: what each fact changed, what lies between two moments,
and what was used.

Nothing is executed again: everything is read from the record and its views.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, fields, replace

from stretto.run.v1 import run_service_pb2 as pb

from stretto_sdk.board_diffs import BoardDiff, board_diffs
from stretto_sdk.client_logs import AnyRun
from stretto_sdk.client_pages import PAGE_SIZE_MAX, Pages
from stretto_sdk.client_usage import UsageReading
from stretto_sdk.errors import InvalidArgument
from stretto_sdk.moments import Moment, as_of_message
from stretto_sdk.runs import Event, Run, Task, run_of, task_of


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayStep:
    """One fact and what it changed. tasks: those it touched, as they were right after it.

    run: as it was right after it, without input and counts, when the fact was about all of it (a
    hold, a stop, an end); such a fact may end tasks that nothing of their own touched.
    """

    event: Event
    tasks: tuple[Task, ...] = ()
    run: Run | None = None


@dataclass(frozen=True, slots=True)
class FieldChange:
    """A member that differs: as it was, and as it became."""

    name: str
    before: object
    after: object


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskDiff:
    """A task that differs. before: None = it had not come to be.

    versions: of the facts that changed it, its own and those about the whole run.
    """

    task: str
    before: Task | None
    after: Task
    changes: tuple[FieldChange, ...]
    versions: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptDiff:
    """An attempt that began or ended. began, ended: by the facts of these versions; 0 = by none.

    how: the type of the fact that ended it, without its package; "" = none did.
    """

    task: str
    epoch: int
    began: int = 0
    ended: int = 0
    how: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunDiff:
    """What lies between two moments of a run. events: the facts in between, oldest first.

    board: the entries of its blackboard that differ, by key.
    """

    before: Run
    after: Run
    changes: tuple[FieldChange, ...]
    tasks: tuple[TaskDiff, ...]
    attempts: tuple[AttemptDiff, ...]
    board: tuple[BoardDiff, ...]
    events: tuple[Event, ...]


_EVERY_FACT = {"version", "update_time", "position"}
"""Members of a run that differ after every fact, whatever it said."""


class LookingBack(UsageReading):
    """What a client can ask about the past of a run; `Client` has it all."""

    pages: Pages

    async def replay(
        self, run: AnyRun, *, after_version: int = 0, until_version: int = 0
    ) -> AsyncGenerator[ReplayStep, None]:
        """Yield each fact of a run with what it changed, oldest first; executes nothing.

        >>> async for step in client.replay(run):
        ...     print(step.event.version, step.event.type, [task.state for task in step.tasks])

        until_version: 0 = to the newest. Raises NotFound, OutOfRange (it is not there yet),
        InvalidArgument (until_version is below after_version).
        """
        until = until_version or (await self._run(run)).version
        changes = self._changes(run, after_version, until)
        events = self.events(run, after_version=after_version)
        async with aclosing(changes), aclosing(events):
            change = await anext(changes, None)
            async for event in events:
                if event.version > until:
                    return
                tasks: list[Task] = []
                after: Run | None = None
                while change is not None and change.version == event.version:
                    tasks += map(task_of, change.tasks)
                    after = run_of(change.run) if change.HasField("run") else after
                    change = await anext(changes, None)
                yield ReplayStep(event=event, tasks=tuple(tasks), run=after)

    async def diff(self, run: AnyRun, before: Moment, after: Moment | None = None) -> RunDiff:
        """Return what changed in a run between two moments, and which facts changed it.

        >>> for task in (await client.diff(run, 10, 20)).tasks:
        ...     print(task.task, [change.name for change in task.changes], task.versions)

        after: None = as it is. Raises NotFound, OutOfRange, InvalidArgument (after is before).
        """
        first = await self._run(run, before)
        last = await self._run(run, after)
        if last.version < first.version:
            raise InvalidArgument(
                f"from version {first.version} to {last.version} is backwards: the other way round"
            )
        events: list[Event] = []
        touched: dict[str, list[int]] = {}
        stood: dict[str, Task] = {}
        run_wide: list[int] = []
        async for step in self._between(run, first.version, last.version):
            events.append(step.event)
            for task in step.tasks:
                touched.setdefault(task.name, []).append(step.event.version)
                stood[task.name] = task
            if step.run is not None:
                run_wide.append(step.event.version)
        name = self._name_of(run)
        were = self.pages.all_tasks(name, first.version)
        are = self.pages.all_tasks(name, last.version)
        async with aclosing(were), aclosing(are):
            tasks = [found async for found in _task_diffs(were, are, touched, stood, run_wide)]
        return RunDiff(
            before=first,
            after=last,
            changes=_differences(first, last, _EVERY_FACT),
            tasks=tuple(tasks),
            attempts=_attempt_diffs(events),
            board=await board_diffs(
                self._calls.boards, name, events, first=first.version, last=last.version
            ),
            events=tuple(events),
        )

    async def _between(self, run: AnyRun, first: int, last: int) -> AsyncIterator[ReplayStep]:
        if first == last:
            return
        async with aclosing(self.replay(run, after_version=first, until_version=last)) as steps:
            async for step in steps:
                yield step

    async def _run(self, run: AnyRun, moment: Moment | None = None) -> Run:
        request = pb.GetRunRequest(name=self._name_of(run), as_of=as_of_message(moment))
        return run_of((await self._calls.unary(self._calls.runs.GetRun, request)).run)

    async def _changes(
        self, run: AnyRun, after_version: int, until_version: int
    ) -> AsyncGenerator[pb.RunChange, None]:
        request = pb.ListRunChangesRequest(
            parent=self._name_of(run),
            after_version=after_version,
            until_version=until_version,
            page_size=PAGE_SIZE_MAX,
        )
        more = True
        while more:
            page = await self._calls.unary(self._calls.runs.ListRunChanges, request)
            for change in page.changes:
                yield change
            request.page_token = page.next_page_token
            more = bool(page.next_page_token)


async def _task_diffs(
    were: AsyncIterator[Task],
    are: AsyncIterator[Task],
    touched: Mapping[str, Sequence[int]],
    stood: Mapping[str, Task],
    run_wide: Sequence[int],
) -> AsyncIterator[TaskDiff]:
    """Yield the tasks that differ; of all others two pages are held at a time.

    stood: each task as its own last fact left it.
    """
    async for after in are:
        # Tasks are only ever added, and listed in the order they came: both lists begin alike.
        before = await anext(were, None)
        assert before is None or before.name == after.name, "a task never leaves its place"
        changes = () if before is None else _differences(before, after, set())
        if before is not None and not changes:
            continue
        own = touched.get(after.name, ())
        # What was about the whole run is named where the task's own facts do not say all of it.
        said = before is None or stood.get(after.name) == after
        rest = [] if said else [version for version in run_wide if not own or version > own[-1]]
        yield TaskDiff(
            task=after.name, before=before, after=after, changes=changes, versions=(*own, *rest)
        )


def _attempt_diffs(events: Sequence[Event]) -> tuple[AttemptDiff, ...]:
    found: dict[tuple[str, int], AttemptDiff] = {}
    for event in events:
        kind = event.type.rpartition(".")[2]
        if not kind.startswith("Attempt") or kind == "AttemptProgressed":
            continue
        task, epoch = str(event.body.get("task", "")), int(str(event.body.get("epoch", 0)))
        known = found.get((task, epoch), AttemptDiff(task=task, epoch=epoch))
        if kind == "AttemptLeased":
            found[task, epoch] = replace(known, began=event.version)
        else:
            found[task, epoch] = replace(known, ended=event.version, how=kind)
    return tuple(found.values())


def _differences(before: object, after: object, apart: set[str]) -> tuple[FieldChange, ...]:
    names = [each.name for each in fields(after) if each.name not in apart]  # type: ignore[arg-type]
    pairs = ((name, getattr(before, name), getattr(after, name)) for name in names)
    return tuple(FieldChange(name, was, now) for name, was, now in pairs if was != now)
