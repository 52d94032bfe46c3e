"""Many writers of one log at once, one of which holds its insert open now and then."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from eventsourcing.persistence import StoredEvent as LibraryEvent
from psycopg import Rollback
from stretto_core.eventlog.chain import EMPTY_HEAD
from stretto_core.eventlog.codec import Cause, next_head
from stretto_core.eventlog.postgres.connections import PostgresOptions, WriterSession, open_session
from stretto_core.eventlog.postgres.log import PostgresLog
from stretto_core.eventlog.postgres.ownership import PostgresOwnedLog
from stretto_core.eventlog.recorded import NewEvent
from stretto_core.ids import EventId, Namespace, Partition, RequestId, StreamId, derive_run_id
from stretto_core.ids.system import SystemIds
from stretto_kernel.app.fact_writer import KERNEL_PRINCIPAL
from stretto_kernel.owned_partition import RUN_CODEC

from tests.model.runs import Story, graph, task

IDS = SystemIds()
CAUSE = Cause(namespace=Namespace("default"), principal=KERNEL_PRINCIPAL)
NANOSECOND_APART = 1_000
GROUP_RUNS_MAX = 25
OPEN_S_MAX = 0.05
ROLLED_BACK_SHARE = 0.3


def _one_run() -> list[object]:
    story = Story()
    story.start(graph(task("a")))
    story.lease("a")
    story.complete("a")
    return [recorded.event for recorded in story.log]


BODIES = _one_run()
RUN_EVENTS = len(BODIES)


def runs(count: int) -> list[NewEvent]:
    """Return the events of some runs of one task."""
    events: list[NewEvent] = []
    for _ in range(count):
        request_id = RequestId(IDS.uuid7())
        stream = StreamId(derive_run_id(Partition("p0"), CAUSE.namespace, request_id))
        head = EMPTY_HEAD
        for body in BODIES:
            time_ns = head.time_ns + NANOSECOND_APART
            event = RUN_CODEC.encode(
                body,  # type: ignore[arg-type]
                stream=stream,
                head=head,
                event_id=EventId(IDS.uuid7()),
                time_ns=time_ns,
                cause=CAUSE,
            )
            head = next_head(event, time_ns)
            events.append(event)
    return events


class Writers:
    """Writers that share an ownership, as no two kernels ever do: each has a connection."""

    def __init__(self, dsn: str, log: PostgresLog, owned: PostgresOwnedLog, seed: int) -> None:
        self._dsn = dsn
        self._owned = owned
        self._recorder = owned.session.recorder
        self._chance = random.Random(seed)
        self._left = 0
        self._lock = threading.Lock()
        self.held_count = 0
        self.rolled_back_count = 0

    async def write(self, run_count: int, writer_count: int) -> None:
        """Append so many runs over so many connections, while inserts are held open."""
        self._left = run_count
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(writer_count, "trap-writer") as threads:
            work = [self._hold, *[self._write] * (writer_count - 1)]
            await asyncio.gather(*(loop.run_in_executor(threads, each) for each in work))

    def _write(self) -> None:
        with self._session() as session:
            while (count := self._take()) > 0:
                self._insert(session, runs(count))

    def _take(self) -> int:
        with self._lock:
            count = min(self._left, 1 + self._chance.randrange(GROUP_RUNS_MAX))
            self._left -= count
            return count

    def _hold(self) -> None:
        """Hold inserts open while the others wait or commit; sometimes give one up: a hole."""
        with self._session() as session:
            while (count := self._take()) > 0:
                self._hold_one(session, runs(count))

    def _hold_one(self, session: WriterSession, events: Sequence[NewEvent]) -> None:
        rolled_back = self._chance.random() < ROLLED_BACK_SHARE
        with session.transaction():
            self._insert(session, events)
            self.held_count += 1
            session.execute("SELECT pg_sleep(%s)", [self._chance.random() * OPEN_S_MAX])
            if rolled_back:
                raise Rollback
        if rolled_back:
            self.rolled_back_count += 1
            self._insert(session, events)

    def _insert(self, session: WriterSession, events: Sequence[NewEvent]) -> None:
        if events:
            self._recorder.insert_events(
                [
                    LibraryEvent(
                        originator_id=event.stream,
                        originator_version=event.version,
                        topic=event.type,
                        state=event.stored_bytes,
                    )
                    for event in events
                ],
                session=session,
                owner_epoch=self._owned.owner_epoch,
            )

    def _session(self) -> WriterSession:
        session, _ = open_session(self._dsn, PostgresOptions(lock_timeout_s=60))
        # Else the driver drops all that is prepared, ours too, when a transaction is rolled back.
        session.prepare_threshold = None
        self._recorder.prepare_appends(session)
        return session
