"""Blackboards on the kernel's memory log: lost answers, dropped facts, and what a watch is told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

import pytest
from stretto.blackboard.v1.blackboard_pb2 import WRITER_KIND_OPERATOR, Writer
from stretto.common.v1.payload_pb2 import Payload
from stretto_core.eventlog.faults import AppendFault, Fault
from stretto_core.ids import RequestId, RunId
from stretto_kernel.app import board_watching, hosted_run
from stretto_kernel.app.asking import Answered
from stretto_kernel.app.board_calls import BoardWrite, EntryQuery
from stretto_kernel.app.board_watching import (
    BoardChange,
    Compacted,
    TooManyWatchers,
    WatcherTooSlow,
)
from stretto_kernel.app.fact_writer import StoreUnsettled
from stretto_kernel.app.run_calls import Caller
from stretto_kernel.domain.run.blackboard_state import BoardEntry
from stretto_kernel.domain.run.commands import Command, EntryWrite, Kill, PlaceHold, PutEntries
from stretto_kernel.kernel import Kernel

from tests.unit.kernel.harness import (
    IDS,
    NAMESPACE,
    USER,
    PlannedFaults,
    graph,
    new_store,
    start,
    start_kernel,
    task,
    types_of,
)
from tests.waiting import until

OPERATOR = Writer(kind=WRITER_KIND_OPERATOR, name="anna")


async def a_run(kernel: Kernel) -> RunId:
    return RunId((await start(kernel, graph(task("a"), task("b")))).answer.run_id)


async def put(kernel: Kernel, run_id: RunId, *keys: str, request_id: str = "") -> Answered[int]:
    request_id = request_id or IDS.uuid7()
    command = PutEntries(
        now_ns=kernel.ports.clock.now_ns(),
        request_id=RequestId(request_id),
        request_digest=bytes(32),
        writer=OPERATOR,
        writes=tuple(EntryWrite(key=key, value=Payload(json="1")) for key in keys),
    )
    caller = Caller(principal=USER, request_id=request_id, request_digest=bytes(32))
    write = BoardWrite(NAMESPACE, run_id, command, None, caller)
    return await kernel.partition.boards.write(write)


async def kill(kernel: Kernel, run_id: RunId) -> None:
    await steer(kernel, run_id, Kill)


async def hold(kernel: Kernel, run_id: RunId, hold_id: str) -> None:
    """Record a fact of the run that is none of its blackboard."""
    await steer(kernel, run_id, partial(PlaceHold, hold_id=hold_id))


async def steer(kernel: Kernel, run_id: RunId, make: Callable[..., Command]) -> None:
    request_id = IDS.uuid7()
    command = make(
        now_ns=kernel.ports.clock.now_ns(),
        request_id=RequestId(request_id),
        request_digest=bytes(32),
    )
    caller = Caller(principal=USER, request_id=request_id, request_digest=bytes(32))
    await kernel.partition.calls.steer_run(NAMESPACE, run_id, command, caller)


class Told:
    """A watch, and what it was told."""

    def __init__(
        self, kernel: Kernel, run_id: RunId, prefix: str = "", after: int | None = None
    ) -> None:
        self.changes: list[BoardChange] = []
        watching = kernel.partition.board_watching
        self._watch = watching.watch(NAMESPACE, run_id, prefix, after)
        self.task = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async for change in self._watch:
            self.changes.append(change)

    @property
    def keys(self) -> list[str]:
        return [entry.key for change in self.changes for entry in change.entries]


async def test_a_lost_acknowledgement_is_answered_like_the_first() -> None:
    store, faults = new_store(), PlannedFaults()
    kernel = await start_kernel(store, faults=faults)
    run_id = await a_run(kernel)
    faults.next = [AppendFault(Fault.LOST_AFTER)]
    request_id = IDS.uuid7()
    first, _ = await put(kernel, run_id, "context/a", request_id=request_id)
    kernel.abandon()  # The caller did not hear it, and asks the next kernel.
    kernel = await start_kernel(store, exclusive=False)
    later, _ = await put(kernel, run_id, "context/a")
    again, _ = await put(kernel, run_id, "context/a", request_id=request_id)
    assert again == first < later
    assert types_of(store).count("BoardEntriesWritten") == 2
    await kernel.stop()


async def test_a_dropped_write_is_decided_again_and_told_once() -> None:
    store, faults = new_store(), PlannedFaults()
    kernel = await start_kernel(store, faults=faults)
    run_id = await a_run(kernel)
    told = Told(kernel, run_id)
    await until(lambda: len(told.changes) == 1)
    faults.next = [AppendFault(Fault.LOST_BEFORE)]
    revision, _ = await put(kernel, run_id, "context/a")
    await kill(kernel, run_id)
    await told.task
    assert [(change.revision, len(change.entries)) for change in told.changes[1:-1]] == [
        (revision, 1)
    ]
    assert told.changes[-1].ended
    await kernel.stop()


async def test_nothing_is_told_that_was_not_stored() -> None:
    store, faults = new_store(), PlannedFaults()
    kernel = await start_kernel(store, faults=faults)
    run_id = await a_run(kernel)
    told = Told(kernel, run_id)
    await until(lambda: len(told.changes) == 1)
    faults.next = [AppendFault(Fault.REFUSED)] * 4
    with pytest.raises(StoreUnsettled):
        await put(kernel, run_id, "context/a")
    await put(kernel, run_id, "context/b")
    await kill(kernel, run_id)
    await told.task
    assert told.keys == ["context/b"]
    await kernel.stop()


async def test_what_came_before_a_watch_and_what_comes_after_meet_without_a_gap() -> None:
    kernel = await start_kernel(new_store())
    run_id = await a_run(kernel)
    before, _ = await put(kernel, run_id, "context/0")
    for number in range(1, 5):
        await put(kernel, run_id, f"context/{number}", "a:plan/other")
    told = Told(kernel, run_id, "context/", after=before)
    for number in range(5, 30):
        await put(kernel, run_id, f"context/{number}")
    await kill(kernel, run_id)
    await told.task
    assert told.keys == [f"context/{number}" for number in range(1, 30)]
    revisions = [change.revision for change in told.changes]
    assert revisions == sorted(revisions)
    assert kernel.partition.host.find(run_id) is not None
    assert kernel.partition.host.find(run_id).board_watches == ()  # type: ignore[union-attr]
    await kernel.stop()


@pytest.mark.parametrize(
    ("limit", "value"), [("WAITING_WRITES_MAX", 3), ("WAITING_BYTES_MAX", 3 * len("context/0"))]
)
async def test_a_slow_watcher_is_cut_off_after_what_it_was_kept(
    monkeypatch: pytest.MonkeyPatch, limit: str, value: int
) -> None:
    monkeypatch.setattr(hosted_run, limit, value)
    kernel = await start_kernel(new_store())
    run_id = await a_run(kernel)
    watch = kernel.partition.board_watching.watch(NAMESPACE, run_id, "", None)
    assert (await anext(watch)).entries == []
    revisions = [(await put(kernel, run_id, f"context/{number}"))[0] for number in range(5)]
    kept = await anext(watch)
    assert [entry.key for entry in kept.entries] == [f"context/{number}" for number in range(3)]
    with pytest.raises(WatcherTooSlow):
        await anext(watch)
    told = Told(kernel, run_id, after=kept.revision)
    await until(lambda: told.keys == ["context/3", "context/4"])
    assert told.changes[-1].revision == revisions[-1]
    told.task.cancel()
    await kernel.stop()


async def test_a_large_board_is_told_in_parts_that_hold_nobody_up() -> None:
    kernel = await start_kernel(new_store())
    run_id = await a_run(kernel)
    for first in range(0, 1_200, 100):
        await put(kernel, run_id, *(f"context/{first + number}" for number in range(100)))
    told = Told(kernel, run_id)
    await until(lambda: len(told.keys) == 1_200)
    assert [len(change.entries) for change in told.changes] == [500, 500, 200]
    assert [bool(change.revision) for change in told.changes] == [False, False, True]
    resumed = Told(kernel, run_id, after=1)
    await until(lambda: len(resumed.keys) == 1_200)
    assert all(change.revision for change in resumed.changes)
    assert max(len(change.entries) for change in resumed.changes) == 500
    for each in (told, resumed):
        each.task.cancel()
    await kernel.stop()


async def test_a_start_too_far_back_is_compacted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(board_watching, "CATCH_UP_EVENTS_MAX", 3)
    kernel = await start_kernel(new_store())
    run_id = await a_run(kernel)
    revisions = [(await put(kernel, run_id, "context/a"))[0] for _ in range(5)]
    with pytest.raises(Compacted):
        await anext(kernel.partition.board_watching.watch(NAMESPACE, run_id, "", revisions[0]))
    watch = kernel.partition.board_watching.watch(NAMESPACE, run_id, "", revisions[1])
    assert (await anext(watch)).revision == revisions[-1]
    await watch.aclose()
    await kernel.stop()


async def test_what_else_happened_in_the_run_puts_no_start_too_far_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(board_watching, "CATCH_UP_EVENTS_MAX", 3)
    kernel = await start_kernel(new_store())
    run_id = await a_run(kernel)
    revision, _ = await put(kernel, run_id, "context/a")
    for number in range(5):
        await hold(kernel, run_id, f"h{number}")
    told = Told(kernel, run_id, after=revision)
    await until(lambda: bool(kernel.partition.host.find(run_id).board_watches))  # type: ignore[union-attr]
    await put(kernel, run_id, "context/b")
    await until(lambda: told.keys == ["context/b"])
    told.task.cancel()
    await kernel.stop()


async def test_who_follows_keys_that_nobody_writes_is_told_how_far_that_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(board_watching, "CATCH_UP_EVENTS_MAX", 5)
    monkeypatch.setattr(board_watching, "UNTOLD_EVENTS_MAX", 3)
    kernel = await start_kernel(new_store())
    run_id = await a_run(kernel)
    told = Told(kernel, run_id, "human/")
    await until(lambda: len(told.changes) == 1)
    revisions = [(await put(kernel, run_id, "context/a"))[0] for _ in range(8)]
    await until(lambda: told.changes[-1].revision >= revisions[-1] - 3)
    told.task.cancel()
    late = Told(kernel, run_id, "human/", after=revisions[-5])
    await until(lambda: late.changes == [BoardChange((), revisions[-1])])
    await put(kernel, run_id, "human/a")
    await until(lambda: late.keys == ["human/a"])
    late.task.cancel()
    await kernel.stop()


async def test_watchers_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(board_watching, "WATCHERS_MAX", 1)
    kernel = await start_kernel(new_store())
    run_id = await a_run(kernel)
    told = Told(kernel, run_id)
    await until(lambda: bool(told.changes))
    with pytest.raises(TooManyWatchers):
        await anext(kernel.partition.board_watching.watch(NAMESPACE, run_id, "", None))
    told.task.cancel()
    await kernel.stop()


async def test_many_entries_come_in_parts_of_which_the_last_can_be_resumed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(board_watching, "PAGE_BYTES_MAX", 600)
    kernel = await start_kernel(new_store())
    run_id = await a_run(kernel)
    revision, _ = await put(kernel, run_id, *(f"context/{number}" for number in range(5)))
    told = Told(kernel, run_id)
    await until(lambda: bool(told.changes) and told.changes[-1].revision > 0)
    assert len(told.keys) == 5 and len(told.changes) > 1
    assert [change.revision for change in told.changes] == [0] * (len(told.changes) - 1) + [
        revision
    ]
    told.task.cancel()
    await kernel.stop()


async def test_a_watch_ends_with_the_ownership() -> None:
    store = new_store()
    kernel = await start_kernel(store)
    run_id = await a_run(kernel)
    told = Told(kernel, run_id)
    await until(lambda: bool(told.changes))
    await kernel.stop()
    await asyncio.wait([told.task], timeout=20)
    assert told.task.done() and told.task.exception() is not None


async def test_a_write_wakes_nobody_who_follows_the_tasks() -> None:
    kernel = await start_kernel(new_store())
    run_id = await a_run(kernel)
    run = kernel.partition.host.find(run_id)
    assert run is not None
    watch = hosted_run.RunWatch()
    run.watches.append(watch)
    await put(kernel, run_id, "context/a")
    assert not watch.is_noted
    await kernel.stop()


async def test_pages_are_in_the_order_of_keys_and_heed_what_was_written_since(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kernel = await start_kernel(new_store())
    run_id = await a_run(kernel)
    written = [f"context/{name}" for name in "dbca"]
    await put(kernel, run_id, *written)
    asked: list[str] = []
    matches = EntryQuery.matches

    def noted(query: EntryQuery, entry: BoardEntry) -> bool:
        asked.append(entry.key)
        return matches(query, entry)

    monkeypatch.setattr(EntryQuery, "matches", noted)

    async def page(*, after_key: str = "", prefix: str = "") -> list[str]:
        asked.clear()
        query = EntryQuery(prefix=prefix, after_key=after_key)
        found = await kernel.partition.boards.list_entries(NAMESPACE, run_id, query, count_max=2)
        assert len(asked) <= 3, "what lies before a page is not looked at"
        return [entry.key for entry in found.entries]

    assert await page() == ["context/a", "context/b"]
    assert await page(after_key="context/b") == ["context/c", "context/d"]
    assert await page(prefix="context/c") == ["context/c"]
    await put(kernel, run_id, "context/bb", "human/x")
    assert await page(after_key="context/b") == ["context/bb", "context/c"]
    assert await page(prefix="human/") == ["human/x"]
    await kernel.stop()
