-- Snapshots of runs: a row for each part of the newest of a run. Not part of the record: all of it can
-- be dropped at any time.

-- name: create
CREATE TABLE IF NOT EXISTS {table} (
    stream text NOT NULL,
    part integer NOT NULL,
    version bigint NOT NULL,
    chain_hash bytea NOT NULL,
    rules text NOT NULL,
    digest bytea NOT NULL,
    bytes bytea NOT NULL,
    PRIMARY KEY (stream, part)
);

-- name: exists
SELECT to_regclass({table_name}) IS NOT NULL AS found;

-- name: forget
DELETE FROM {table} WHERE stream = %(stream)s;

-- name: keep
INSERT INTO {table} (stream, part, version, chain_hash, rules, digest, bytes)
SELECT %(stream)s, number - 1, %(version)s, %(chain_hash)s, %(rules)s, %(digest)s, bytes
FROM unnest(%(parts)s::bytea[]) WITH ORDINALITY AS part (bytes, number);

-- name: load
SELECT version, chain_hash, rules, digest, bytes FROM {table} WHERE stream = %(stream)s ORDER BY part;

-- name: size
SELECT count(*) FILTER (WHERE part = 0) AS snapshot_count,
       pg_total_relation_size({table_name}::regclass) AS size_bytes
FROM {table};
