-- What is known of views as a whole: how far each is, why one stands still, and fresh folds of them.
-- All of it can be dropped with the views.

-- name: create
-- One at a time: IF NOT EXISTS looks and makes in two steps.
SELECT pg_advisory_xact_lock(hashtext({lock_name}));
CREATE TABLE IF NOT EXISTS {schema}.view_stops_v1 (
    view text PRIMARY KEY,
    position bigint NOT NULL,
    reason text NOT NULL,
    message text NOT NULL,
    stop_time timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE IF NOT EXISTS {schema}.view_counts_v1 (
    view text PRIMARY KEY,
    event_count bigint NOT NULL
) WITH (fillfactor = 50);
CREATE TABLE IF NOT EXISTS {schema}.fresh_folds_v1 (
    fold_id text PRIMARY KEY,
    ask_number bigint GENERATED ALWAYS AS IDENTITY,
    done boolean NOT NULL,
    fold jsonb NOT NULL
);
-- At most one at a time, whoever asks.
CREATE UNIQUE INDEX IF NOT EXISTS fresh_folds_v1_open ON {schema}.fresh_folds_v1 (done) WHERE NOT done;

-- name: positions
SELECT application_name AS view, max(notification_id) AS position FROM {schema}.tracking
WHERE application_name = ANY(%(views)s::text[]) GROUP BY application_name;

-- name: forget
WITH counted AS (DELETE FROM {schema}.view_counts_v1 WHERE view = ANY(%(views)s::text[]))
DELETE FROM {schema}.tracking WHERE application_name = ANY(%(views)s::text[]);

-- name: count
-- Of a view whose first events were not counted nothing is: it would look as if some were missing.
INSERT INTO {schema}.view_counts_v1 AS kept (view, event_count)
SELECT asked.view, %(event_count)s::bigint FROM unnest(%(views)s::text[]) AS asked (view)
WHERE %(after)s::bigint = 0
   OR EXISTS (SELECT FROM {schema}.view_counts_v1 AS one WHERE one.view = asked.view)
ON CONFLICT (view) DO UPDATE SET event_count = kept.event_count + excluded.event_count;

-- name: counts
SELECT view, event_count FROM {schema}.view_counts_v1;

-- name: take_count
INSERT INTO {schema}.view_counts_v1 (view, event_count)
SELECT %(view)s, event_count FROM {schema}.view_counts_v1 WHERE view = %(copy)s
ON CONFLICT (view) DO UPDATE SET event_count = excluded.event_count;

-- name: log_count
SELECT count(*) AS event_count FROM {schema}.events
WHERE notification_id > %(after)s AND notification_id <= %(position)s;

-- name: stop
INSERT INTO {schema}.view_stops_v1 AS kept (view, position, reason, message)
VALUES (%(view)s, %(position)s, %(reason)s, %(message)s)
ON CONFLICT (view) DO UPDATE SET
    position = excluded.position, reason = excluded.reason, message = excluded.message,
    stop_time = CASE WHEN kept.position = excluded.position THEN kept.stop_time ELSE now() END;

-- name: follow
DELETE FROM {schema}.view_stops_v1 WHERE view = ANY(%(views)s::text[]);

-- name: stops
SELECT view, position, reason, message, stop_time FROM {schema}.view_stops_v1;

-- name: sizes
-- About, as the planner knows it; a table that was never looked at has -1.
SELECT relname AS view, greatest(reltuples, 0)::bigint AS row_count FROM pg_class
WHERE relnamespace = to_regnamespace(%(schema)s) AND relkind = 'r' AND relname = ANY(%(views)s);

-- name: log_position
SELECT coalesce(max(notification_id), 0) AS position FROM {schema}.events;

-- name: exists
SELECT to_regclass(%(table)s) IS NOT NULL AS found;

-- name: open_fold
SELECT fold FROM {schema}.fresh_folds_v1 WHERE NOT done;

-- name: read_fold
SELECT fold FROM {schema}.fresh_folds_v1 WHERE fold_id = %(fold_id)s;

-- name: ask_fold
INSERT INTO {schema}.fresh_folds_v1 (fold_id, done, fold) VALUES (%(fold_id)s, false, %(fold)s)
ON CONFLICT DO NOTHING;

-- name: note_fold
-- What is done stays done, also when a second projector still was at work on it.
UPDATE {schema}.fresh_folds_v1 SET done = %(done)s, fold = %(fold)s
WHERE fold_id = %(fold_id)s AND NOT done;

-- name: rebuilt_by
-- The newest fold whose copies took the place of a view, which is written down with the exchange.
SELECT fold ->> 'fold_id' AS fold_id FROM {schema}.fresh_folds_v1
WHERE done AND (fold ->> 'swaps')::boolean AND fold ->> 'failure_reason' = ''
  AND fold -> 'views' @> to_jsonb(%(view)s::text)
ORDER BY ask_number DESC LIMIT 1;

-- name: prune_folds
DELETE FROM {schema}.fresh_folds_v1 WHERE done AND ask_number <
    (SELECT max(ask_number) - 20 FROM {schema}.fresh_folds_v1);
