-- The view blob_references: which blobs a partition's facts name.

-- name: create
CREATE TABLE {table} (
    namespace text NOT NULL,
    digest bytea NOT NULL,
    PRIMARY KEY (namespace, digest)
);

-- name: upsert
INSERT INTO {table} (namespace, digest)
SELECT * FROM unnest(%(namespace)s::text[], %(digest)b::bytea[])
ON CONFLICT DO NOTHING;

-- name: exists
SELECT to_regclass({table_name}) IS NOT NULL AS found;

-- name: recorded
SELECT coalesce(max(notification_id), 0) FROM {schema}.events;

-- name: read
SELECT coalesce(max(notification_id), 0) FROM {schema}.tracking WHERE application_name = {follower};

-- name: named
SELECT kept.namespace, kept.digest FROM {table} AS kept
JOIN unnest(%(namespace)s::text[], %(digest)s::bytea[]) AS asked (namespace, digest)
USING (namespace, digest);
