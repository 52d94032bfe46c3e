"""The views `attempts` and `run_phases` in PostgreSQL, as ListAttempts reads them."""

from __future__ import annotations

from psycopg import Cursor
from psycopg.rows import DictRow
from psycopg.sql import SQL, Composed, Identifier, Literal
from stretto.run.v1 import run_pb2
from stretto_core.eventlog.postgres.schema import PartitionSchema
from stretto_core.eventlog.postgres.tracking import TrackingRecorder
from stretto_core.ids import Partition

from stretto_kernel.adapters.view_reader import ViewReader
from stretto_kernel.app.attempt_listing import AttemptFilter, AttemptPage, ListedAttempt
from stretto_kernel.projections.attempts import ATTEMPTS
from stretto_kernel.projections.run_index import RUN_INDEX
from stretto_kernel.projections.run_phases import RUN_PHASES


class AttemptTable:
    """Implements AttemptList over the connections that `tracking` uses."""

    def __init__(self, partition: Partition, tracking: TrackingRecorder) -> None:
        self._reader = ViewReader(partition, tracking, ATTEMPTS)
        self._schema = PartitionSchema(partition).name

    async def list_attempts(self, found: AttemptFilter, *, count_max: int) -> AttemptPage:
        """See `AttemptList`."""

        def read(cursor: Cursor[DictRow], position: int) -> AttemptPage:
            known = cursor.execute(self.run_statement(found)).fetchone() is not None
            rows = cursor.execute(self.list_statement(found, count_max + 1)).fetchall()
            attempts = [
                ListedAttempt(row["leased_version"], _attempt(row)) for row in rows[:count_max]
            ]
            if not known:
                return AttemptPage(position, [], more=False, run_known=False)
            return AttemptPage(position, attempts, more=len(rows) > count_max, run_known=True)

        return await self._reader.read(read, AttemptPage(0, [], more=False, run_known=False))

    def run_statement(self, found: AttemptFilter) -> Composed:
        """Return what tells whether the tenant has the run."""
        return SQL("SELECT 1 FROM {table} WHERE run_id = {run_id} AND namespace = {name}").format(
            table=Identifier(self._schema, RUN_INDEX.table),
            run_id=Literal(found.run_id),
            name=Literal(found.namespace),
        )

    def list_statement(self, found: AttemptFilter, count: int) -> Composed:
        """Return what lists attempts, each with the run-wide fact that revoked it, if one did."""
        named = SQL("AND kept.task = {}").format(Literal(found.task)) if found.task else SQL("")
        return SQL(
            "SELECT kept.*, revoked.state AS revoked_state, revoked.since_ns AS revoked_ns"
            " FROM {attempts} AS kept LEFT JOIN LATERAL ("
            "  SELECT phase.state, CASE WHEN phase.ended_ns > 0 THEN phase.ended_ns"
            "         ELSE phase.given_up_ns END AS since_ns FROM {phases} AS phase"
            "  WHERE phase.run_id = kept.run_id AND phase.from_version > kept.leased_version"
            "    AND phase.ordinary = 2 AND phase.ended_ns + phase.given_up_ns > 0"
            "  ORDER BY phase.from_version LIMIT 1) AS revoked ON kept.ended_ns = 0"
            " WHERE kept.run_id = {run_id} AND kept.leased_version > {after} {named}"
            " ORDER BY kept.leased_version LIMIT {count}"
        ).format(
            attempts=self._reader.table,
            phases=Identifier(self._schema, RUN_PHASES.table),
            run_id=Literal(found.run_id),
            after=Literal(found.after_version),
            named=named,
            count=Literal(count),
        )


def _attempt(row: DictRow) -> run_pb2.Attempt:
    shown = run_pb2.Attempt(
        task=row["task"],
        activation=row["activation"],
        attempt=row["attempt"],
        epoch=row["epoch"],
        worker_id=row["worker_id"],
        session_id=row["session_id"],
        outcome=row["outcome"],
    )
    shown.lease_time.FromNanoseconds(row["leased_ns"])
    if row["failure"]:
        shown.failure.ParseFromString(bytes(row["failure"]))
    ended_ns = row["ended_ns"]
    if not ended_ns and row["revoked_state"] is not None:
        ended_ns = row["revoked_ns"]
        killed = row["revoked_state"] == run_pb2.RUN_STATE_KILLED
        shown.outcome = (
            run_pb2.ATTEMPT_OUTCOME_KILLED if killed else run_pb2.ATTEMPT_OUTCOME_CANCELLED
        )
    if ended_ns:
        shown.end_time.FromNanoseconds(ended_ns)
    return shown
