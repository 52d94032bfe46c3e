-- Task logs: what attempts write, and one row a run for the sweep. No part of the record: written
-- without waiting for the disk, swept after a time. A new version is a new table.

-- name: create
CREATE TABLE IF NOT EXISTS {schema}.task_log_v1 (
    run_id text NOT NULL,
    position bigint NOT NULL,
    task text NOT NULL,
    epoch bigint NOT NULL,
    activation integer NOT NULL,
    attempt integer NOT NULL,
    sequence bigint NOT NULL,
    stream smallint NOT NULL,
    time_ns bigint NOT NULL,
    store_ns bigint NOT NULL,
    dropped_bytes bigint NOT NULL,
    line_count integer NOT NULL,
    lease_entry_count bigint NOT NULL,
    lease_bytes bigint NOT NULL,
    truncated boolean NOT NULL,
    content bytea NOT NULL,
    PRIMARY KEY (run_id, position)
);
CREATE INDEX IF NOT EXISTS task_log_v1_task ON {schema}.task_log_v1 (run_id, task, position);
CREATE TABLE IF NOT EXISTS {schema}.task_log_runs_v1 (
    run_id text PRIMARY KEY,
    oldest_ns bigint NOT NULL,
    newest_ns bigint NOT NULL
) WITH (fillfactor = 80);

-- name: exists
SELECT to_regclass({runs_table}) IS NOT NULL;

-- name: heads_of_runs
SELECT asked.run_id, newest.position
FROM unnest(%(run_id)s::text[]) AS asked (run_id)
CROSS JOIN LATERAL (
    SELECT position FROM {schema}.task_log_v1 WHERE run_id = asked.run_id
    ORDER BY position DESC LIMIT 1
) AS newest;

-- name: heads_of_leases
SELECT asked.run_id, asked.task, asked.epoch, newest.sequence, newest.lease_entry_count,
       newest.lease_bytes, newest.truncated
FROM unnest(%(run_id)s::text[], %(task)s::text[], %(epoch)s::bigint[])
    AS asked (run_id, task, epoch)
CROSS JOIN LATERAL (
    SELECT sequence, lease_entry_count, lease_bytes, truncated FROM {schema}.task_log_v1
    WHERE run_id = asked.run_id AND task = asked.task AND epoch = asked.epoch
    ORDER BY position DESC LIMIT 1
) AS newest;

-- name: append
-- Positions that another process took meet the primary key, and nothing is stored.
INSERT INTO {schema}.task_log_v1 (
    run_id, position, task, epoch, activation, attempt, sequence, stream, time_ns, store_ns,
    dropped_bytes, line_count, lease_entry_count, lease_bytes, truncated, content)
SELECT run_id, position, task, epoch, activation, attempt, sequence, stream, time_ns,
       %(store_ns)b::bigint, dropped_bytes, line_count, lease_entry_count, lease_bytes, truncated,
       content
FROM unnest(
    %(run_id)b::text[], %(position)b::bigint[], %(task)b::text[], %(epoch)b::bigint[],
    %(activation)b::integer[], %(attempt)b::integer[], %(sequence)b::bigint[],
    %(stream)b::smallint[], %(time_ns)b::bigint[], %(dropped_bytes)b::bigint[],
    %(line_count)b::integer[], %(lease_entry_count)b::bigint[], %(lease_bytes)b::bigint[],
    %(truncated)b::boolean[], %(content)b::bytea[]
) AS new (run_id, position, task, epoch, activation, attempt, sequence, stream, time_ns,
          dropped_bytes, line_count, lease_entry_count, lease_bytes, truncated, content);

-- name: note_runs
INSERT INTO {schema}.task_log_runs_v1 AS kept (run_id, oldest_ns, newest_ns)
SELECT DISTINCT run_id, %(store_ns)b::bigint, %(store_ns)b::bigint
FROM unnest(%(run_id)b::text[]) AS new (run_id)
ON CONFLICT (run_id) DO UPDATE SET
    oldest_ns = LEAST(kept.oldest_ns, excluded.oldest_ns), newest_ns = excluded.newest_ns;

-- name: newest_position
SELECT COALESCE(max(position), 0) FROM {schema}.task_log_v1 WHERE run_id = %(run_id)s;

-- name: read
-- Contents are fetched only for what the page may hold.
SELECT position, task, epoch, activation, attempt, sequence, stream, time_ns, dropped_bytes,
       lease_entry_count, lease_bytes, truncated, content
FROM (
    SELECT *, sum(octet_length(content)) OVER (ORDER BY position) - octet_length(content) AS before
    FROM (
        SELECT * FROM {schema}.task_log_v1
        WHERE run_id = %(run_id)s AND position > %(after_position)s
          AND (%(task)s::text = '' OR task = %(task)s)
          AND (%(attempt)s::integer = 0 OR attempt = %(attempt)s)
        ORDER BY position LIMIT %(count)s
    ) AS found
) AS measured
WHERE before < %(bytes_max)s
ORDER BY position;

-- name: tail
-- From the newest back; no content is read.
SELECT position, line_count FROM {schema}.task_log_v1
WHERE run_id = %(run_id)s AND position < %(before_position)s
  AND (%(task)s::text = '' OR task = %(task)s)
  AND (%(attempt)s::integer = 0 OR attempt = %(attempt)s)
ORDER BY position DESC LIMIT %(count)s;

-- name: last_content
SELECT content FROM {schema}.task_log_v1
WHERE run_id = %(run_id)s AND position = %(position)s;
