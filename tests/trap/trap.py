"""The delayed-commit trap: inserts are held open while others commit, and everybody counts.

Whoever follows a log by positions passes over an event whose position was drawn before, and
committed after, the one it has seen, unless the log makes that impossible. Every subscriber of ours
is in it: the log's own tail, Subscribe's feed, the projector with all views, the relay. (A watch of
a run hears of its owner's commits and reads no positions.) Writers, projector and relay are
processes of their own, so that a million events are a matter of minutes.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass

from stretto_core.eventlog.port import EventLog
from stretto_core.eventlog.postgres.log import PostgresLog
from stretto_kernel.adapters.fresh_fold_table import FreshFoldTable
from stretto_kernel.adapters.view_tables import ViewTables
from stretto_kernel.projections.registry import VIEWS
from stretto_kernel.projections.run_index import RUN_INDEX
from stretto_kernel.projections.view_calls import Standing

from tests.trap.apart import projecting, relaying, write
from tests.trap.subscribers import Tally, follow_feed, follow_tail
from tests.trap.writers import P0, RUN_EVENTS
from tests.waiting import passed

Follow = Callable[[EventLog, Tally], Coroutine[None, None, None]]
LOOK_S = 0.25
TELL_S = 10.0


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
    nats_url: str,
    *,
    event_count: int,
    writer_count: int = 32,
    seed: int = 1,
    others: Sequence[tuple[str, Follow]] = (),
    deadline_s: float = 120.0,
    tell: Callable[[str], None] = lambda _: None,
) -> Sprung:
    """Write about `event_count` events while everybody follows; return what each has counted.

    deadline_s: for those who follow, after the last is written. tell: given a line now and then.
    """
    log = await PostgresLog.open(dsn, P0)
    owned = await log.acquire()
    began_s = time.perf_counter()
    tail, feed, relay = Tally("tail"), Tally("feed"), Tally("relay")
    rest = [(Tally(name), follow) for name, follow in others]
    tallies = [tail, feed, relay, *(tally for tally, _ in rest)]
    board = FreshFoldTable(dsn, P0, log.tracking)
    run_count = event_count // RUN_EVENTS
    async with relaying(dsn, nats_url, relay), projecting(dsn, nats_url):
        following = [
            asyncio.create_task(follow(log, tally))
            for tally, follow in ((tail, follow_tail), (feed, follow_feed), *rest)
        ]
        telling = asyncio.create_task(_tell(board, tallies, tell))
        held = await write(
            dsn, owned.owner_epoch, run_count=run_count, writer_count=writer_count, seed=seed
        )
        tell(f"all written after {time.perf_counter() - began_s:.0f} s")
        standing = await _all_are_there(board, tallies, deadline_s)
        for task in (*following, telling):
            task.cancel()
        await asyncio.wait((*following, telling))
    expected = run_count * RUN_EVENTS
    faults = [fault for tally in tallies if (fault := tally.fault(expected))]
    counts = {tally.name: tally.count for tally in tallies}
    for view in standing.views:
        counts[f"view {view.view.name}"] = view.event_count or 0
        if view.event_count != expected or view.log_event_count != expected:
            faults.append(
                f"view {view.view.name}: {view.event_count} of {view.log_event_count} events"
            )
    if await _row_count(ViewTables(P0, log.tracking)) != run_count:
        faults.append(f"run_index has not {run_count:,} rows")
    await owned.release()
    await log.close()
    return Sprung(
        event_count=expected,
        counts=counts,
        **held._asdict(),
        wall_s=time.perf_counter() - began_s,
        faults=tuple(faults),
    )


async def _all_are_there(
    board: FreshFoldTable, tallies: Sequence[Tally], deadline_s: float
) -> Standing:
    """Return once everybody is at the end of the log: a place, not a count.

    One that has passed over something gets there as well, and is found out; one that is wrong is
    not waited for. Raises TimeoutError.
    """
    async with asyncio.timeout(deadline_s):
        while True:
            standing = await board.standing(VIEWS)
            if _least_view(standing) >= standing.log_position and all(
                tally.position >= standing.log_position or tally.wrong for tally in tallies
            ):
                return standing
            await passed(LOOK_S)


async def _tell(
    board: FreshFoldTable, tallies: Sequence[Tally], tell: Callable[[str], None]
) -> None:
    while True:
        await passed(TELL_S)
        standing = await board.standing(VIEWS)
        places = {tally.name: tally.position for tally in tallies}
        places |= {"views": _least_view(standing)}
        said = ", ".join(f"{name} {position:,}" for name, position in places.items())
        tell(f"log at position {standing.log_position:,}; {said}")


def _least_view(standing: Standing) -> int:
    return min(view.position for view in standing.views)


async def _row_count(views: ViewTables) -> int:
    statement = f"SELECT count(*) AS row_count FROM {views.schema}.{RUN_INDEX.table}"
    row = await views.transact(
        lambda cursor: cursor.execute(statement.encode()).fetchone(), commit=False
    )
    return 0 if row is None else int(row["row_count"])
