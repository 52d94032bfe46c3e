-- The view run_index: one row a run. ListRuns and recovery read it.

-- name: create
CREATE TABLE {table} (
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
CREATE INDEX ON {table} (namespace, create_ns DESC, run_id DESC);
CREATE INDEX ON {table} (namespace, state, create_ns DESC, run_id DESC);
CREATE INDEX ON {table} (namespace, display_name, create_ns DESC, run_id DESC);
CREATE INDEX ON {table} USING gin (labels jsonb_path_ops);
CREATE INDEX ON {table} (next_due_ns) WHERE NOT ended;

-- name: upsert
-- A row only moves forward: a batch that is stored twice changes nothing.
INSERT INTO {table} AS kept
SELECT new.run_id, new.namespace, new.version, new.state, new.display_name, new.labels::jsonb,
       new.create_ns, new.ended, new.next_due_ns, string_to_array(new.queues, ','), new.shown
FROM unnest(
    %(run_id)s::text[], %(namespace)s::text[], %(version)s::bigint[], %(state)s::integer[],
    %(display_name)s::text[], %(labels)s::text[], %(create_ns)s::bigint[], %(ended)s::boolean[],
    %(next_due_ns)s::bigint[], %(queues)s::text[], %(shown)b::bytea[]
) AS new (run_id, namespace, version, state, display_name, labels, create_ns, ended, next_due_ns,
          queues, shown)
ON CONFLICT (run_id) DO UPDATE SET
    version = excluded.version, state = excluded.state, ended = excluded.ended,
    next_due_ns = excluded.next_due_ns, queues = excluded.queues, shown = excluded.shown
WHERE kept.version < excluded.version;

-- name: active
SELECT run_id, next_due_ns, queues FROM {table} WHERE NOT ended;

-- name: version
SELECT version FROM {table} WHERE run_id = %(run_id)s;
