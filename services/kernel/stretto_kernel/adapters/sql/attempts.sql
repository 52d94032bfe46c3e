-- The view attempts: a row for each lease of a task, with how its attempt ended by its own events.

-- name: create
CREATE TABLE {table} (
    run_id text NOT NULL,
    task text NOT NULL,
    epoch bigint NOT NULL,
    leased_version bigint NOT NULL,
    activation integer NOT NULL,
    attempt integer NOT NULL,
    worker_id text NOT NULL,
    session_id text NOT NULL,
    leased_ns bigint NOT NULL,
    ended_ns bigint NOT NULL,
    outcome smallint NOT NULL,
    failure bytea NOT NULL,
    PRIMARY KEY (run_id, task, epoch)
) WITH (fillfactor = 80);
CREATE INDEX ON {table} (run_id, leased_version);

-- name: upsert
INSERT INTO {table}
SELECT * FROM unnest(
    %(run_id)s::text[], %(task)s::text[], %(epoch)s::bigint[], %(leased_version)s::bigint[],
    %(activation)s::integer[], %(attempt)s::integer[], %(worker_id)s::text[], %(session_id)s::text[],
    %(leased_ns)s::bigint[], %(ended_ns)s::bigint[], %(outcome)s::smallint[], %(failure)b::bytea[]
)
ON CONFLICT (run_id, task, epoch) DO UPDATE SET
    ended_ns = excluded.ended_ns, outcome = excluded.outcome, failure = excluded.failure;
