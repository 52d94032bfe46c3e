-- The view usage: attempts of each run's queues and workers, and how long they were held. A run_id of
-- '' stands for all runs of the namespace. Nanoseconds of many workers over years pass the end of bigint.

-- name: create
CREATE TABLE {table} (
    namespace text NOT NULL,
    run_id text NOT NULL,
    queue text NOT NULL,
    worker_id text NOT NULL,
    attempt_count bigint NOT NULL,
    ended_count bigint NOT NULL,
    succeeded_count bigint NOT NULL,
    held_ns numeric(38) NOT NULL,
    succeeded_ns numeric(38) NOT NULL,
    PRIMARY KEY (namespace, run_id, queue, worker_id)
) WITH (fillfactor = 80);

-- name: upsert
-- What is added, once: a batch is stored onto the position that it follows, or not at all.
INSERT INTO {table} AS kept
SELECT * FROM unnest(
    %(namespace)s::text[], %(run_id)s::text[], %(queue)s::text[], %(worker_id)s::text[],
    %(attempt_count)s::bigint[], %(ended_count)s::bigint[], %(succeeded_count)s::bigint[],
    %(held_ns)s::numeric[], %(succeeded_ns)s::numeric[]
)
ON CONFLICT (namespace, run_id, queue, worker_id) DO UPDATE SET
    attempt_count = kept.attempt_count + excluded.attempt_count,
    ended_count = kept.ended_count + excluded.ended_count,
    succeeded_count = kept.succeeded_count + excluded.succeeded_count,
    held_ns = kept.held_ns + excluded.held_ns,
    succeeded_ns = kept.succeeded_ns + excluded.succeeded_ns;
