-- The view blob_references: which blobs a partition's facts name, as of its follower's position.

-- name: create
CREATE TABLE IF NOT EXISTS {schema}.blob_references_v1 (
    namespace text NOT NULL,
    digest bytea NOT NULL,
    PRIMARY KEY (namespace, digest)
);

-- name: exists
SELECT to_regclass({table_name}) IS NOT NULL AS found;

-- name: upsert
INSERT INTO {schema}.blob_references_v1 (namespace, digest)
SELECT * FROM unnest(%(namespace)s::text[], %(digest)s::bytea[])
ON CONFLICT DO NOTHING;

-- name: recorded
SELECT coalesce(max(notification_id), 0) FROM {schema}.events;

-- name: read
SELECT coalesce(max(notification_id), 0) FROM {schema}.tracking WHERE application_name = {follower};

-- name: named
SELECT kept.namespace, kept.digest FROM {schema}.blob_references_v1 AS kept
JOIN unnest(%(namespace)s::text[], %(digest)s::bytea[]) AS asked (namespace, digest)
USING (namespace, digest);
