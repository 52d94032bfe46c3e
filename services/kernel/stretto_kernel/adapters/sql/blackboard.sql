-- The view blackboard: a row for each version of an entry; `to_version` is the version of the next
-- one, null for the newest. As of a version v of the run an entry is as the row with
-- from_version <= v and (to_version is null or to_version > v) says; a deletion is a row, too.

-- name: create
CREATE TABLE {table} (
    run_id text NOT NULL,
    key text COLLATE "C" NOT NULL,
    from_version bigint NOT NULL,
    to_version bigint,
    namespace text NOT NULL,
    task text NOT NULL,
    board_namespace text NOT NULL,
    deleted boolean NOT NULL,
    writer_kind smallint NOT NULL,
    writer bytea NOT NULL,
    value bytea NOT NULL,
    written_ns bigint NOT NULL,
    PRIMARY KEY (run_id, key, from_version)
);
CREATE INDEX ON {table} (namespace, run_id, key) WHERE to_version IS NULL;

-- name: upsert
WITH new AS MATERIALIZED (
    SELECT *, lead(from_version) OVER (PARTITION BY run_id, key ORDER BY from_version) AS to_version,
           min(from_version) OVER (PARTITION BY run_id, key) AS first_version
    FROM unnest(
        %(run_id)s::text[], %(key)s::text[], %(from_version)s::bigint[], %(namespace)s::text[],
        %(task)s::text[], %(board_namespace)s::text[], %(deleted)s::boolean[],
        %(writer_kind)s::smallint[], %(writer)b::bytea[], %(value)b::bytea[],
        %(written_ns)s::bigint[]
    ) AS new (run_id, key, from_version, namespace, task, board_namespace, deleted, writer_kind,
              writer, value, written_ns)
), closed AS (
    UPDATE {table} AS kept SET to_version = new.from_version FROM new
    WHERE new.from_version = new.first_version AND kept.run_id = new.run_id
      AND kept.key = new.key AND kept.to_version IS NULL
)
INSERT INTO {table} (run_id, key, from_version, to_version, namespace, task, board_namespace,
                     deleted, writer_kind, writer, value, written_ns)
SELECT run_id, key, from_version, to_version, namespace, task, board_namespace, deleted, writer_kind,
       writer, value, written_ns
FROM new;

-- name: namespaces
-- Each by one look into the index, whatever the number of entries.
WITH RECURSIVE found AS (
    (SELECT namespace FROM {table} WHERE to_version IS NULL ORDER BY namespace LIMIT 1)
    UNION ALL
    SELECT (SELECT kept.namespace FROM {table} AS kept
            WHERE kept.to_version IS NULL AND kept.namespace > found.namespace
            ORDER BY kept.namespace LIMIT 1)
    FROM found WHERE found.namespace IS NOT NULL
)
SELECT namespace FROM found WHERE namespace IS NOT NULL;

-- name: newest
-- The newest version of each entry of a namespace, deletions included, a page after a key.
SELECT * FROM {table}
WHERE to_version IS NULL AND namespace = %(namespace)s
  AND (run_id, key) > (%(run_id)s, %(key)s COLLATE "C")
ORDER BY run_id, key LIMIT %(count)s;
