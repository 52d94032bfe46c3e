"""The delayed-commit trap: inserts are held open while others commit, and everybody counts.

Whoever follows a log by positions passes over an event whose position was drawn before, and
committed after, the one it has seen, unless the log makes that impossible. Every subscriber of ours
is in it: the log's own tail, Subscribe's feed, the projector with all views, the relay.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from stretto_core.bus import Bus
from stretto_core.eventlog.port import EventLog
from stretto_core.eventlog.postgres.log import PostgresLog
from stretto_core.ids import Partition
from stretto_kernel.adapters.fresh_fold_table import FreshFoldTable
from stretto_kernel.adapters.relay_board import RelayBoardTable
from stretto_kernel.adapters.view_tables import ViewTables
from stretto_kernel.owned_partition import RUN_CODEC
from stretto_kernel.projections.projector import Projector
from stretto_kernel.projections.registry import VIEWS
from stretto_kernel.projections.run_index import RUN_INDEX
from stretto_kernel.projections.store import Target
from stretto_kernel.relay.relay import Relay

from tests.trap.subscribers import CountingBus, Tally, follow_feed, follow_tail
from tests.trap.writers import RUN_EVENTS, Writers
from tests.waiting import until

P0 = Partition("p0")
Follow = Callable[[EventLog, Tally], Awaitable[None]]


@dataclass(frozen=True)
class Sprung:
    """What came of it. faults: what is wrong, a line each."""

    event_count: int
    counts: dict[str, int]
    held_count: int
    rolled_back_count: int
    wall_s: float
    faults: tuple[str, ...]


async def spring(
    dsn: str,
    bus: Bus,
    *,
    event_count: int,
    writer_count: int = 32,
    seed: int = 1,
    others: Sequence[tuple[str, Follow]] = (),
    deadline_s: float = 120.0,
) -> Sprung:
    """Write about `event_count` events while everybody follows; return what each has counted."""
    log = await PostgresLog.open(dsn, P0)
    owned = await log.acquire()
    began_s = time.perf_counter()
    tallies = [Tally("tail"), Tally("feed"), Tally("relay"), *(Tally(name) for name, _ in others)]
    views = ViewTables(P0, log.tracking)
    projector = Projector(log, views, VIEWS, RUN_CODEC)
    relay = Relay(log, CountingBus(bus, tallies[2]), RelayBoardTable(views))
    following: list[asyncio.Task[None]] = [
        asyncio.create_task(each)  # type: ignore[arg-type]
        for each in (
            follow_tail(log, tallies[0]),
            follow_feed(log, tallies[1]),
            relay.run(),
            projector.run(),
            *(follow(log, tally) for (_, follow), tally in zip(others, tallies[3:], strict=True)),
        )
    ]
    run_count = event_count // RUN_EVENTS
    expected = run_count * RUN_EVENTS
    writers = Writers(dsn, log, owned, seed)
    await writers.write(run_count, writer_count)
    # What is looked at here does not take connections from those who follow.
    looking = await PostgresLog.open(dsn, P0)
    seen = ViewTables(P0, looking.tracking)
    head = await looking.position()
    # Places, not counts: one that has passed over something gets there as well, and is found out.
    await until(lambda: relay.position >= head, deadline_s)
    await until(
        lambda: all(t.position >= head or t.wrong for t in tallies if t.name != "relay"), deadline_s
    )
    await _views_are_at(seen, head, deadline_s)
    board = FreshFoldTable(dsn, P0, looking.tracking)
    standing = await board.standing(VIEWS)
    for task in following:
        task.cancel()
    await asyncio.wait(following)
    faults = [fault for tally in tallies if (fault := tally.fault(expected))]
    counts = {tally.name: tally.count for tally in tallies}
    for view in standing.views:
        counts[f"view {view.view.name}"] = view.event_count or 0
        if view.event_count != expected or view.log_event_count != expected:
            faults.append(
                f"view {view.view.name}: {view.event_count} of {view.log_event_count} events"
            )
        if view.view is RUN_INDEX and await _row_count(seen) != run_count:
            faults.append(f"run_index has not {run_count:,} rows")
    with suppress(Exception):
        await owned.release()
    await looking.close()
    await log.close()
    return Sprung(
        event_count=expected,
        counts=counts,
        held_count=writers.held_count,
        rolled_back_count=writers.rolled_back_count,
        wall_s=time.perf_counter() - began_s,
        faults=tuple(faults),
    )


async def _views_are_at(views: ViewTables, head: int, deadline_s: float) -> None:
    targets = [Target(view) for view in VIEWS]
    async with asyncio.timeout(deadline_s):
        while min((await views.prepare(targets)).values()) < head:
            pass  # Each look is a transaction: nothing spins.


async def _row_count(views: ViewTables) -> int:
    statement = f"SELECT count(*) AS row_count FROM {views.schema}.{RUN_INDEX.table}"
    row = await views.transact(
        lambda cursor: cursor.execute(statement.encode()).fetchone(), commit=False
    )
    return 0 if row is None else int(row["row_count"])
