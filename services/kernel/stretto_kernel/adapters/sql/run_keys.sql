-- The data keys of runs: part of the record, once per database. A row is made before its run's first
-- fact and deleted when the run is shredded; `shredding` marks one whose deletion is under way.

-- name: create
CREATE SCHEMA IF NOT EXISTS stretto;
CREATE TABLE IF NOT EXISTS stretto.run_keys (
    key_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    run_id text NOT NULL UNIQUE,
    secret bytea NOT NULL,
    shredding boolean NOT NULL DEFAULT false,
    made_time timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX IF NOT EXISTS run_keys_shredding ON stretto.run_keys (key_id) WHERE shredding;

-- name: exists
SELECT to_regclass('stretto.run_keys') IS NOT NULL;

-- name: make
-- A start that is sent again finds the key of the first time, which is not old any more.
INSERT INTO stretto.run_keys AS kept (run_id, secret)
SELECT run_id, secret FROM unnest(%(run_ids)s::text[], %(secrets)s::bytea[]) AS new (run_id, secret)
ORDER BY run_id
ON CONFLICT (run_id) DO UPDATE SET made_time = now()
RETURNING run_id, key_id, secret;

-- name: find
SELECT key_id, secret FROM stretto.run_keys WHERE key_id = ANY(%(key_ids)s::bigint[]);

-- name: mark
UPDATE stretto.run_keys SET shredding = true WHERE key_id = %(key_id)s AND NOT shredding;

-- name: marked
SELECT key_id, run_id FROM stretto.run_keys WHERE shredding ORDER BY key_id;

-- name: unmark
UPDATE stretto.run_keys SET shredding = false WHERE key_id = %(key_id)s;

-- name: overwrite
-- The row's newest version says nothing any more, whatever becomes of the older ones.
UPDATE stretto.run_keys SET secret = decode(repeat('00', 32), 'hex') WHERE key_id = %(key_id)s;

-- name: blobs_exist
SELECT to_regclass('stretto.blob_keys') IS NOT NULL;

-- name: destroy
DELETE FROM stretto.run_keys WHERE key_id = %(key_id)s;

-- name: old
-- Made, and asked for by a start the last time, more than a day ago.
SELECT key_id, run_id FROM stretto.run_keys
WHERE key_id > %(after_key_id)s AND made_time < now() - interval '24 hours' AND NOT shredding
ORDER BY key_id LIMIT %(count)s;

-- name: sweep
-- A start that asks for the key meanwhile is waited for, and the condition then looks at what it wrote.
DELETE FROM stretto.run_keys
WHERE key_id = ANY(%(key_ids)s::bigint[]) AND made_time < now() - interval '24 hours'
  AND NOT shredding
RETURNING key_id;

-- name: clean
-- Frees the pages of the row's dead versions; not inside a transaction.
VACUUM (TRUNCATE false) stretto.run_keys;
