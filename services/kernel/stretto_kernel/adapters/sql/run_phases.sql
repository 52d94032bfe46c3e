-- The view run_phases: what a run does to all of its tasks, from a version on until its next row.

-- name: create
CREATE TABLE {table} (
    run_id text NOT NULL,
    from_version bigint NOT NULL,
    state smallint NOT NULL,
    ordinary smallint NOT NULL,
    clean_up boolean NOT NULL,
    held boolean NOT NULL,
    given_up_ns bigint NOT NULL,
    ended_ns bigint NOT NULL,
    shown bytea NOT NULL,
    PRIMARY KEY (run_id, from_version)
);

-- name: upsert
INSERT INTO {table}
SELECT * FROM unnest(
    %(run_id)s::text[], %(from_version)s::bigint[], %(state)s::smallint[], %(ordinary)s::smallint[],
    %(clean_up)s::boolean[], %(held)s::boolean[], %(given_up_ns)s::bigint[], %(ended_ns)s::bigint[],
    %(shown)b::bytea[]
);

-- name: as_of
SELECT run_id, from_version, state, ordinary, clean_up, held, given_up_ns, ended_ns, shown FROM {table}
WHERE run_id = %(run_id)s AND from_version <= %(version)s ORDER BY from_version DESC LIMIT 1;

-- name: changes
-- The run at the beginning of some versions, and whenever it changed in them.
SELECT run_id, from_version, state, ordinary, clean_up, held, given_up_ns, ended_ns, shown FROM {table}
WHERE run_id = %(run_id)s AND from_version <= %(until_version)s AND from_version >= coalesce(
    (SELECT max(from_version) FROM {table}
     WHERE run_id = %(run_id)s AND from_version <= %(after_version)s), 0)
ORDER BY from_version LIMIT %(count)s;
