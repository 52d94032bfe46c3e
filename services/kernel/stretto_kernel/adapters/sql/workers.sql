-- The view workers: who was ever given work, and when a fact last told of it.

-- name: create
CREATE TABLE {table} (
    worker_id text COLLATE "C" PRIMARY KEY,
    session_id text NOT NULL,
    lease_count bigint NOT NULL,
    first_ns bigint NOT NULL,
    last_ns bigint NOT NULL
) WITH (fillfactor = 50);

-- name: upsert
-- What is added, once: a batch is stored onto the position that it follows, or not at all.
INSERT INTO {table} AS kept
SELECT * FROM unnest(
    %(worker_id)s::text[], %(session_id)s::text[], %(lease_count)s::bigint[], %(first_ns)s::bigint[],
    %(last_ns)s::bigint[]
)
ON CONFLICT (worker_id) DO UPDATE SET
    session_id = CASE WHEN excluded.last_ns >= kept.last_ns THEN excluded.session_id
                      ELSE kept.session_id END,
    lease_count = kept.lease_count + excluded.lease_count,
    first_ns = least(kept.first_ns, excluded.first_ns),
    last_ns = greatest(kept.last_ns, excluded.last_ns);

-- name: page
SELECT worker_id, session_id, lease_count, first_ns, last_ns FROM {table}
WHERE worker_id > %(after)s ORDER BY worker_id LIMIT %(count)s;
