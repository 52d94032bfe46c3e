"""Names, tables and functions of the record in PostgreSQL, and the statements over them.

One schema per partition holds its events and tracking tables, made by the library's recorders;
the schema `stretto` holds what is once per database: partitions (who owns what) and keys. Every
function carries its version in its name, so that an old process survives a rolling upgrade.
"""

from __future__ import annotations

from dataclasses import dataclass

from psycopg.sql import SQL, Composed, Identifier, Literal

from stretto_core.ids import Partition

SHARED_SCHEMA = "stretto"
EVENTS_TABLE = "events"
TRACKING_TABLE = "tracking"
APPEND_FUNCTION = "append_events_v1"
OWNER_EPOCH_MISMATCH = "ST001"
"""SQLSTATE of an append whose owner epoch is not the partition's."""
SCHEMA_VERSION = 2
"""Raise it when `CREATE_SHARED` or what the recorders create changes."""
_LOCK_CLASS = 0x53545254
"""First half of our advisory lock keys, so that they meet no one else's ("STRT")."""

CREATE_SHARED = (
    SQL("CREATE SCHEMA IF NOT EXISTS {}").format(Identifier(SHARED_SCHEMA)),
    SQL(
        "CREATE TABLE IF NOT EXISTS stretto.partitions ("
        " partition text PRIMARY KEY,"
        " schema_version integer NOT NULL,"
        " owner_epoch bigint NOT NULL DEFAULT 0,"
        " made_time timestamptz NOT NULL DEFAULT now())"
    ),
    SQL(
        "CREATE TABLE IF NOT EXISTS stretto.keys ("
        " partition text NOT NULL,"
        " key_number bigint NOT NULL,"
        " secret bytea NOT NULL,"
        " made_time timestamptz NOT NULL DEFAULT now())"
    ),
    # The first version of the table held lease keys alone.
    SQL(
        "ALTER TABLE stretto.keys ADD COLUMN IF NOT EXISTS purpose text NOT NULL DEFAULT 'lease',"
        " DROP CONSTRAINT IF EXISTS keys_pkey,"
        " ADD PRIMARY KEY (partition, purpose, key_number)"
    ),
)

PARTITIONS_TABLE_EXISTS = SQL("SELECT to_regclass('stretto.partitions') IS NOT NULL")
SCHEMA_VERSION_OF = SQL("SELECT schema_version FROM stretto.partitions WHERE partition = %s")
RECORD_PARTITION = SQL(
    "INSERT INTO stretto.partitions (partition, schema_version) VALUES (%s, %s)"
    " ON CONFLICT (partition) DO UPDATE SET schema_version = excluded.schema_version"
)
OWNER_EPOCH_OF = SQL("SELECT owner_epoch FROM stretto.partitions WHERE partition = %s")
RAISE_OWNER_EPOCH = SQL(
    "UPDATE stretto.partitions SET owner_epoch = owner_epoch + 1"
    " WHERE partition = %s RETURNING owner_epoch"
)
LEASE_PURPOSE = "lease"
SEAL_PURPOSE = "seal"
FIRST_KEY = SQL(
    "INSERT INTO stretto.keys (partition, purpose, key_number, secret) VALUES (%s, %s, 1, %s)"
    " ON CONFLICT DO NOTHING"
)
NEWEST_KEYS = SQL(
    "SELECT secret FROM stretto.keys WHERE partition = %s AND purpose = %s"
    " ORDER BY key_number DESC LIMIT 2"
)
# One statement: two rotations at once meet in the primary key, and one of them is refused.
ROTATE_KEY = SQL(
    "WITH newest AS (SELECT max(key_number) AS number FROM stretto.keys"
    "  WHERE partition = %(partition)s AND purpose = %(purpose)s),"
    " retired AS (DELETE FROM stretto.keys USING newest"
    "  WHERE partition = %(partition)s AND purpose = %(purpose)s AND key_number < newest.number)"
    " INSERT INTO stretto.keys (partition, purpose, key_number, secret)"
    " SELECT %(partition)s, %(purpose)s, number + 1, %(secret)s FROM newest"
)
LOCK_INITIALISATION = SQL("SELECT pg_advisory_xact_lock({}, 0)").format(Literal(_LOCK_CLASS))
LOCK_PARTITION = SQL("SELECT pg_advisory_lock({}, hashtext(%s))").format(Literal(_LOCK_CLASS))
TRY_LOCK_PARTITION = SQL("SELECT pg_try_advisory_lock({}, hashtext(%s))").format(
    Literal(_LOCK_CLASS)
)
THIS_BACKEND = SQL(
    "SELECT pid, backend_start::text FROM pg_stat_activity WHERE pid = pg_backend_pid()"
)
# By start time too: a restarted server may have given the process id to somebody else. Returns
# only when the backend is gone, or false after the time, in milliseconds.
END_BACKEND = SQL(
    "SELECT pg_terminate_backend(pid, %s) FROM pg_stat_activity"
    " WHERE pid = %s AND backend_start::text = %s"
)


@dataclass(frozen=True, slots=True)
class PartitionSchema:
    """The names and statements of one partition."""

    partition: Partition

    @property
    def name(self) -> str:
        """The schema: `stretto_<partition>`."""
        return f"{SHARED_SCHEMA}_{self.partition}".replace("-", "_")

    @property
    def channel(self) -> str:
        """The NOTIFY channel: channels are per database, so it names the partition."""
        return f"{self.name}_{EVENTS_TABLE}"

    def statement(self, text: str) -> Composed:
        """Return `text` with {schema}, {events}, {append} and {channel} filled in."""
        return SQL(text).format(
            schema=Identifier(self.name),
            events=Identifier(self.name, EVENTS_TABLE),
            append=Identifier(self.name, APPEND_FUNCTION),
            channel=Identifier(self.channel),
            partition=Literal(self.partition),
            mismatch=Literal(OWNER_EPOCH_MISMATCH),
        )

    def create_schema(self) -> Composed:
        """The partition's schema."""
        return self.statement("CREATE SCHEMA IF NOT EXISTS {schema}")

    def create_append_function(self) -> Composed:
        """Append under the lock that makes the order of positions the order of commits.

        In READ COMMITTED every statement of the function sees what was committed before it, so
        the epoch is compared as it stands once the lock is held. Positions are drawn after the
        sort, in the order given.
        """
        return self.statement(
            "CREATE OR REPLACE FUNCTION {append}("
            " presented_epoch bigint, streams text[], versions bigint[],"
            " types text[], states bytea[]) RETURNS bigint[] LANGUAGE plpgsql AS $body$"
            " DECLARE current_epoch bigint; positions bigint[];"
            " BEGIN"
            "  LOCK TABLE {events} IN EXCLUSIVE MODE;"
            "  SELECT owner_epoch INTO current_epoch FROM stretto.partitions"
            "   WHERE partition = {partition};"
            "  IF current_epoch IS DISTINCT FROM presented_epoch THEN"
            "   RAISE EXCEPTION 'owner epoch %% presented, %% current',"
            "    presented_epoch, current_epoch USING ERRCODE = {mismatch};"
            "  END IF;"
            "  WITH stored AS ("
            "   INSERT INTO {events} (originator_id, originator_version, topic, state)"
            "   SELECT stream, version, type, state"
            "   FROM unnest(streams, versions, types, states)"
            "    WITH ORDINALITY AS new (stream, version, type, state, ordinality)"
            "   ORDER BY ordinality"
            "   RETURNING notification_id)"
            "  SELECT array_agg(notification_id ORDER BY notification_id)"
            "   INTO positions FROM stored;"
            "  NOTIFY {channel};"
            "  RETURN positions;"
            " END $body$".replace("%%", "%")
        )

    def append(self) -> Composed:
        """Call the append function, as a statement to prepare; returns the positions."""
        return self.statement(
            "SELECT {append}($1::bigint, $2::text[], $3::bigint[], $4::text[], $5::bytea[])"
        )

    def lock_events(self) -> Composed:
        """Wait for every append under way and hold off others until the transaction ends."""
        return self.statement("LOCK TABLE {events} IN EXCLUSIVE MODE")

    def positions_of(self) -> Composed:
        """Return the positions of those of the given events that are stored byte for byte."""
        return self.statement(
            "SELECT array_agg(notification_id ORDER BY ordinality)"
            " FROM unnest(%b::text[], %b::bigint[], %b::bytea[])"
            "  WITH ORDINALITY AS asked (stream, version, state, ordinality)"
            " JOIN {events} AS stored ON stored.originator_id = asked.stream"
            "  AND stored.originator_version = asked.version AND stored.state = asked.state"
        )

    def read_stream(self) -> Composed:
        """One stream after a version."""
        return self.statement(
            "SELECT notification_id, originator_id, originator_version, topic, state FROM {events}"
            " WHERE originator_id = %s AND originator_version > %s"
            " ORDER BY originator_version LIMIT %s"
        )

    def read_all(self) -> Composed:
        """All streams after a position."""
        return self.statement(
            "SELECT notification_id, originator_id, originator_version, topic, state FROM {events}"
            " WHERE notification_id > %s ORDER BY notification_id LIMIT %s"
        )

    def last_position(self) -> Composed:
        """The newest position."""
        return self.statement("SELECT max(notification_id) FROM {events}")

    def last_events(self) -> Composed:
        """The last event of each of many streams."""
        return self.statement(
            "SELECT last.originator_id, last.state FROM unnest(%s::text[]) AS asked (stream)"
            " CROSS JOIN LATERAL (SELECT originator_id, state FROM {events}"
            "  WHERE originator_id = asked.stream"
            "  ORDER BY originator_version DESC LIMIT 1) AS last"
        )

    def existing_streams(self) -> Composed:
        """Which of many streams have an event."""
        return self.statement(
            "SELECT asked.stream FROM unnest(%s::text[]) AS asked (stream)"
            " WHERE EXISTS (SELECT FROM {events} WHERE originator_id = asked.stream)"
        )
