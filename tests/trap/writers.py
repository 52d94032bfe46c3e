"""Many writers of one log at once, one of which holds its inserts open.

Run as a process (`tests.trap.apart`), so that writers and those who follow do not wait for each
other's interpreter: it appends its share of the runs, each thread over a connection of its own, and
prints what it has held open as a line of JSON.
"""

from __future__ import annotations

import argparse
import json
import random
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from eventsourcing.persistence import StoredEvent as LibraryEvent
from psycopg import Rollback
from stretto_core.eventlog.chain import EMPTY_HEAD
from stretto_core.eventlog.codec import Cause, next_head
from stretto_core.eventlog.postgres.connections import (
    PostgresOptions,
    WriterSession,
    open_datastore,
    open_session,
)
from stretto_core.eventlog.postgres.recorder import PartitionRecorder
from stretto_core.eventlog.postgres.schema import PartitionSchema
from stretto_core.eventlog.recorded import NewEvent
from stretto_core.ids import EventId, Namespace, Partition, RequestId, StreamId, derive_run_id
from stretto_core.ids.system import SystemIds
from stretto_kernel.app.fact_writer import KERNEL_PRINCIPAL
from stretto_kernel.owned_partition import RUN_CODEC

from tests.model.runs import Story, graph, task

IDS = SystemIds()
P0 = Partition("p0")
CAUSE = Cause(namespace=Namespace("default"), principal=KERNEL_PRINCIPAL)
NANOSECOND_APART = 1_000
GROUP_RUNS_MAX = 25
OPEN_S_MAX = 0.05
OPTIONS = PostgresOptions(lock_timeout_s=60)
ROLLED_BACK_EACH = 3
"""The first that is held open is given up, and then every so many."""


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
        stream = StreamId(derive_run_id(P0, CAUSE.namespace, request_id))
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

    def __init__(self, dsn: str, owner_epoch: int, seed: str) -> None:
        self._dsn = dsn
        self._owner_epoch = owner_epoch
        names = PartitionSchema(P0)
        self._recorder = PartitionRecorder(open_datastore(dsn, names, OPTIONS), names)
        self._chance = random.Random(seed)
        self._left = 0
        self._lock = threading.Lock()
        self.held_count = 0
        self.rolled_back_count = 0

    def write(self, run_count: int, writer_count: int) -> None:
        """Append so many runs over so many connections, while inserts are held open."""
        self._left = run_count
        with ThreadPoolExecutor(writer_count, "trap-writer") as threads:
            work = [self._hold, *[self._write] * (writer_count - 1)]
            for writing in [threads.submit(each) for each in work]:
                writing.result()
        self._recorder.datastore.close()

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
        """Hold inserts open while the others wait or commit; give some of them up: holes."""
        with self._session() as session:
            while (count := self._take()) > 0:
                self._hold_one(session, runs(count))

    def _hold_one(self, session: WriterSession, events: Sequence[NewEvent]) -> None:
        rolled_back = self.held_count % ROLLED_BACK_EACH == 0
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
                owner_epoch=self._owner_epoch,
            )

    def _session(self) -> WriterSession:
        session, _ = open_session(self._dsn, OPTIONS)
        # Else the driver drops all that is prepared, ours too, when a transaction is rolled back.
        session.prepare_threshold = None
        self._recorder.prepare_appends(session)
        return session


def main() -> None:
    """Write what the command line says; print what was held open, and what was given up."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dsn", required=True)
    parser.add_argument("--owner-epoch", type=int, required=True)
    parser.add_argument("--seed", required=True)
    parser.add_argument("--runs", type=int, required=True)
    parser.add_argument("--writers", type=int, required=True)
    asked = parser.parse_args()
    writers = Writers(asked.dsn, asked.owner_epoch, asked.seed)
    writers.write(asked.runs, asked.writers)
    held = {"held_count": writers.held_count, "rolled_back_count": writers.rolled_back_count}
    print(json.dumps(held))  # noqa: T201 - for who has started it


if __name__ == "__main__":
    main()
