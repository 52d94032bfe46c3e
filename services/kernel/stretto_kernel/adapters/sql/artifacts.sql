-- The view artifacts: the files that attempts left behind.

-- name: create
CREATE TABLE {table} (
    run_id text NOT NULL,
    task text NOT NULL,
    epoch bigint NOT NULL,
    name text NOT NULL,
    namespace text NOT NULL,
    version bigint NOT NULL,
    digest bytea NOT NULL,
    size_bytes bigint NOT NULL,
    content_type text NOT NULL,
    PRIMARY KEY (run_id, task, epoch, name)
);

-- name: upsert
INSERT INTO {table}
SELECT * FROM unnest(
    %(run_id)s::text[], %(task)s::text[], %(epoch)s::bigint[], %(name)s::text[],
    %(namespace)s::text[], %(version)s::bigint[], %(digest)b::bytea[], %(size_bytes)s::bigint[],
    %(content_type)s::text[]
);
