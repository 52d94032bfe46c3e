-- The retention of task logs: entries by their age, and all of a run once it has ended.

-- name: exist
SELECT to_regclass({runs_table}) IS NOT NULL AND to_regclass({run_index}) IS NOT NULL;

-- name: due_runs
SELECT log.run_id, COALESCE(run.ended AND log.newest_ns < %(ended_before_ns)s, false) AS whole
FROM {schema}.task_log_runs_v1 AS log
LEFT JOIN {run_index_table} AS run USING (run_id)
WHERE log.oldest_ns < %(before_ns)s OR (run.ended AND log.newest_ns < %(ended_before_ns)s)
LIMIT %(count)s;

-- name: delete_entries
DELETE FROM {schema}.task_log_v1
WHERE run_id = %(run_id)s AND position IN (
    SELECT position FROM {schema}.task_log_v1
    WHERE run_id = %(run_id)s AND (%(whole)s OR store_ns < %(before_ns)s)
    ORDER BY position LIMIT %(count)s
);

-- name: forget_run
-- It has ended and wrote nothing since it was found due.
DELETE FROM {schema}.task_log_runs_v1
WHERE run_id = %(run_id)s AND newest_ns < %(ended_before_ns)s;

-- name: note_oldest
-- Without any entry left it is due again when it has written again.
UPDATE {schema}.task_log_runs_v1 AS kept SET oldest_ns = COALESCE(
    (SELECT store_ns FROM {schema}.task_log_v1 WHERE run_id = kept.run_id
     ORDER BY position LIMIT 1),
    9223372036854775807)
WHERE run_id = %(run_id)s;
