-- The view run_index: one row a run, as of the follower's position. Rebuilt from the log when its
-- version changes: a new version is a new table and a new follower, and the old ones are dropped.

-- name: create
CREATE TABLE IF NOT EXISTS {schema}.run_index_v1 (
    run_id text PRIMARY KEY,
    namespace text NOT NULL,
    version bigint NOT NULL,
    state integer NOT NULL,
    display_name text NOT NULL,
    labels jsonb NOT NULL,
    create_ns bigint NOT NULL,
    ended boolean NOT NULL,
    next_due_ns bigint,
    queues text[] NOT NULL,
    shown bytea NOT NULL
) WITH (fillfactor = 80);
CREATE INDEX IF NOT EXISTS run_index_v1_newest
    ON {schema}.run_index_v1 (namespace, create_ns DESC, run_id DESC);
CREATE INDEX IF NOT EXISTS run_index_v1_active
    ON {schema}.run_index_v1 (next_due_ns) WHERE NOT ended;

-- name: exists
SELECT to_regclass({table_name}) IS NOT NULL AS found;

-- name: upsert
-- A row only moves forward: a batch that is stored twice changes nothing.
INSERT INTO {schema}.run_index_v1 AS kept
SELECT new.run_id, new.namespace, new.version, new.state, new.display_name, new.labels::jsonb,
       new.create_ns, new.ended, new.next_due_ns, string_to_array(new.queues, ','), new.shown
FROM unnest(
    %(run_id)s::text[], %(namespace)s::text[], %(version)s::bigint[], %(state)s::integer[],
    %(display_name)s::text[], %(labels)s::text[], %(create_ns)s::bigint[], %(ended)s::boolean[],
    %(next_due_ns)s::bigint[], %(queues)s::text[], %(shown)s::bytea[]
) AS new (run_id, namespace, version, state, display_name, labels, create_ns, ended, next_due_ns,
          queues, shown)
ON CONFLICT (run_id) DO UPDATE SET
    version = excluded.version, state = excluded.state, ended = excluded.ended,
    next_due_ns = excluded.next_due_ns, queues = excluded.queues, shown = excluded.shown
WHERE kept.version < excluded.version;

-- name: active
SELECT run_id, next_due_ns, queues FROM {schema}.run_index_v1 WHERE NOT ended;

-- name: list
SELECT run_id, create_ns, shown FROM {schema}.run_index_v1
WHERE namespace = %(namespace)s
  AND (create_ns, run_id) < (%(before_ns)s, %(before_run_id)s)
  AND create_ns >= %(since_ns)s
  AND (%(state)s::integer IS NULL OR state = %(state)s)
  AND (%(display_name)s::text IS NULL OR display_name = %(display_name)s)
  AND (%(labels)s::jsonb IS NULL OR labels @> %(labels)s::jsonb)
ORDER BY create_ns DESC, run_id DESC
LIMIT %(count)s;
