-- The view tasks: a row for each version of a task by its own events; `to_version` is the version of
-- the next one, 2^63 - 1 (9223372036854775807) for the newest. As of a version v of the run a task is
-- as the row with from_version <= v and to_version > v says.

-- name: create
CREATE TABLE {table} (
    run_id text NOT NULL,
    task text NOT NULL,
    from_version bigint NOT NULL,
    to_version bigint NOT NULL,
    number integer NOT NULL,
    phase smallint NOT NULL,
    clean_up boolean NOT NULL,
    not_before_ns bigint NOT NULL,
    queue text NOT NULL,
    executor text NOT NULL,
    shown bytea NOT NULL,
    -- In the order of changes: what some versions changed is read without the rest of the run.
    PRIMARY KEY (run_id, from_version, number)
);
-- In the order of tasks, with all that says whether a row counts as of a version and in a state: rows
-- that do not are passed over in the index, not looked up one by one.
CREATE INDEX ON {table} (run_id, number, from_version, to_version, phase);
CREATE INDEX ON {table} (run_id, phase, number) WHERE to_version = 9223372036854775807;

-- name: upsert
WITH new AS MATERIALIZED (
    SELECT *, lead(from_version, 1, 9223372036854775807)
                  OVER (PARTITION BY run_id, number ORDER BY from_version) AS to_version,
           min(from_version) OVER (PARTITION BY run_id, number) AS first_version
    FROM unnest(
        %(run_id)s::text[], %(task)s::text[], %(from_version)s::bigint[], %(number)s::integer[],
        %(phase)s::smallint[], %(clean_up)s::boolean[], %(not_before_ns)s::bigint[],
        %(queue)s::text[], %(executor)s::text[], %(shown)b::bytea[]
    ) AS new (run_id, task, from_version, number, phase, clean_up, not_before_ns, queue, executor,
              shown)
), closed AS (
    UPDATE {table} AS kept SET to_version = new.from_version FROM new
    WHERE new.from_version = new.first_version AND kept.run_id = new.run_id
      AND kept.number = new.number AND kept.to_version = 9223372036854775807
)
INSERT INTO {table} (run_id, task, from_version, to_version, number, phase, clean_up, not_before_ns,
                     queue, executor, shown)
SELECT run_id, task, from_version, to_version, number, phase, clean_up, not_before_ns, queue, executor,
       shown
FROM new;

-- name: kinds_as_of
-- How many tasks of a run there were of each kind, as of a version.
SELECT phase, clean_up, not_before_ns > %(judged_ns)s AS backs_off, count(*) AS task_count FROM {table}
WHERE run_id = %(run_id)s AND from_version <= %(version)s AND to_version > %(version)s
GROUP BY 1, 2, 3;

-- name: changes
-- What versions of a run changed of its tasks: no more than one message takes, and how many there were.
SELECT * FROM (
    SELECT *, count(*) OVER () AS found_count,
        sum(octet_length(shown)) OVER (ORDER BY from_version, number) - octet_length(shown)
            AS before_bytes
    FROM (
        SELECT * FROM {table}
        WHERE run_id = %(run_id)s AND from_version <= %(until_version)s
          AND (from_version, number) > (%(after_version)s, %(after_number)s)
        ORDER BY from_version, number LIMIT %(count)s
    ) AS page
) AS cut
WHERE before_bytes < %(bytes_max)s ORDER BY from_version, number;
