-- The view usage: attempts of each task, and how long they held a worker.

-- name: create
CREATE TABLE {table} (
    run_id text NOT NULL,
    task text NOT NULL,
    attempt_count bigint NOT NULL,
    held_ns bigint NOT NULL,
    PRIMARY KEY (run_id, task)
) WITH (fillfactor = 80);

-- name: upsert
-- What is added, once: a batch is stored onto the position that it follows, or not at all.
INSERT INTO {table} AS kept
SELECT * FROM unnest(
    %(run_id)s::text[], %(task)s::text[], %(attempt_count)s::bigint[], %(held_ns)s::bigint[]
)
ON CONFLICT (run_id, task) DO UPDATE SET
    attempt_count = kept.attempt_count + excluded.attempt_count,
    held_ns = kept.held_ns + excluded.held_ns;
