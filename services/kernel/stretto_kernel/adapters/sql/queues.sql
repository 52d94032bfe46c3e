-- The view queues: what was set of each queue, and what became of its tasks, since ever.

-- name: create
CREATE TABLE {table} (
    queue text COLLATE "C" PRIMARY KEY,
    first_ns bigint NOT NULL,
    last_ns bigint NOT NULL,
    task_count bigint NOT NULL,
    lease_count bigint NOT NULL,
    succeeded_count bigint NOT NULL,
    failed_count bigint NOT NULL,
    last_lease_ns bigint NOT NULL,
    limit_version bigint NOT NULL,
    concurrency_limit integer,
    rate_version bigint NOT NULL,
    tokens_per_second double precision,
    burst integer,
    pause_version bigint NOT NULL,
    pause_reason text,
    changed_ns bigint NOT NULL,
    changed_by bytea NOT NULL
) WITH (fillfactor = 50);

-- name: upsert
-- What is added, once: a batch is stored onto the position that it follows, or not at all. Of each
-- setting the newest fact holds.
INSERT INTO {table} AS kept
SELECT * FROM unnest(
    %(queue)s::text[], %(first_ns)s::bigint[], %(last_ns)s::bigint[], %(task_count)s::bigint[],
    %(lease_count)s::bigint[], %(succeeded_count)s::bigint[], %(failed_count)s::bigint[],
    %(last_lease_ns)s::bigint[], %(limit_version)s::bigint[], %(concurrency_limit)s::integer[],
    %(rate_version)s::bigint[], %(tokens_per_second)s::double precision[], %(burst)s::integer[],
    %(pause_version)s::bigint[], %(pause_reason)s::text[], %(changed_ns)s::bigint[],
    %(changed_by)b::bytea[]
)
ON CONFLICT (queue) DO UPDATE SET
    first_ns = least(kept.first_ns, excluded.first_ns),
    last_ns = greatest(kept.last_ns, excluded.last_ns),
    task_count = kept.task_count + excluded.task_count,
    lease_count = kept.lease_count + excluded.lease_count,
    succeeded_count = kept.succeeded_count + excluded.succeeded_count,
    failed_count = kept.failed_count + excluded.failed_count,
    last_lease_ns = greatest(kept.last_lease_ns, excluded.last_lease_ns),
    limit_version = greatest(kept.limit_version, excluded.limit_version),
    concurrency_limit = CASE WHEN excluded.limit_version > kept.limit_version
        THEN excluded.concurrency_limit ELSE kept.concurrency_limit END,
    rate_version = greatest(kept.rate_version, excluded.rate_version),
    tokens_per_second = CASE WHEN excluded.rate_version > kept.rate_version
        THEN excluded.tokens_per_second ELSE kept.tokens_per_second END,
    burst = CASE WHEN excluded.rate_version > kept.rate_version
        THEN excluded.burst ELSE kept.burst END,
    pause_version = greatest(kept.pause_version, excluded.pause_version),
    pause_reason = CASE WHEN excluded.pause_version > kept.pause_version
        THEN excluded.pause_reason ELSE kept.pause_reason END,
    changed_ns = CASE
        WHEN greatest(excluded.limit_version, excluded.rate_version, excluded.pause_version)
           > greatest(kept.limit_version, kept.rate_version, kept.pause_version)
        THEN excluded.changed_ns ELSE kept.changed_ns END,
    changed_by = CASE
        WHEN greatest(excluded.limit_version, excluded.rate_version, excluded.pause_version)
           > greatest(kept.limit_version, kept.rate_version, kept.pause_version)
        THEN excluded.changed_by ELSE kept.changed_by END;

-- name: page
SELECT * FROM {table} WHERE queue > %(after)s ORDER BY queue LIMIT %(count)s;

-- name: named
SELECT * FROM {table} WHERE queue = ANY(%(queues)s);
