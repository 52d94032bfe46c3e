-- The blobs: part of the record, once per database. A row without a digest is an upload that has
-- not ended; its touched_ns is when it was last heard of.

-- name: create
CREATE SCHEMA IF NOT EXISTS stretto;
CREATE TABLE IF NOT EXISTS stretto.blobs (
    blob_number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    namespace text NOT NULL,
    digest bytea,
    size_bytes bigint,
    touched_ns bigint NOT NULL,
    made_time timestamptz NOT NULL DEFAULT now(),
    UNIQUE (namespace, digest)
);
CREATE INDEX IF NOT EXISTS blobs_touched ON stretto.blobs (touched_ns);
CREATE TABLE IF NOT EXISTS stretto.blob_chunks (
    blob_number bigint NOT NULL REFERENCES stretto.blobs ON DELETE CASCADE,
    chunk_number integer NOT NULL,
    bytes bytea NOT NULL,
    PRIMARY KEY (blob_number, chunk_number)
);
-- Keys of encrypted blobs: as it was put (key_id 0), and once for each run that names it, under the id
-- of that run's data key. An encrypted blob without any cannot be read any more.
ALTER TABLE stretto.blobs ADD COLUMN IF NOT EXISTS encrypted boolean NOT NULL DEFAULT false;
CREATE TABLE IF NOT EXISTS stretto.blob_keys (
    blob_number bigint NOT NULL REFERENCES stretto.blobs ON DELETE CASCADE,
    key_id bigint NOT NULL,
    secret bytea NOT NULL,
    PRIMARY KEY (blob_number, key_id)
);
CREATE INDEX IF NOT EXISTS blob_keys_run ON stretto.blob_keys (key_id) WHERE key_id > 0;
-- Blobs are compressed already or not worth it; and a chunk is read as it lies.
ALTER TABLE stretto.blob_chunks ALTER COLUMN bytes SET STORAGE EXTERNAL;

-- name: exists
SELECT to_regclass('stretto.blob_keys') IS NOT NULL;

-- name: hold_key
-- The key of the run that names blobs. While this transaction holds it nobody destroys it, and who
-- does afterwards finds what was copied; nothing is found of one that is destroyed.
SELECT key_id FROM stretto.run_keys WHERE key_id = %(key_id)s FOR SHARE;

-- name: touch
-- Rows are locked in the order of their digests: two commands that name the same blobs in another
-- order wait for each other and never in a circle. A deletion that holds a row is waited for.
WITH named AS (
    SELECT * FROM unnest(%(digests)s::bytea[], %(sizes_bytes)s::bigint[])
        AS asked (digest, size_bytes)
), there AS (
    SELECT kept.blob_number FROM stretto.blobs AS kept
    JOIN named ON kept.digest = named.digest AND kept.size_bytes = named.size_bytes
    WHERE kept.namespace = %(namespace)s AND (
        EXISTS (SELECT FROM stretto.blob_keys AS held WHERE held.blob_number = kept.blob_number)
        OR NOT (kept.encrypted OR %(encrypts)s)
    )
    ORDER BY kept.digest
    FOR UPDATE OF kept
), copied AS (
    INSERT INTO stretto.blob_keys (blob_number, key_id, secret)
    SELECT DISTINCT ON (held.blob_number) held.blob_number, %(key_id)s, held.secret
    FROM stretto.blob_keys AS held JOIN there USING (blob_number)
    WHERE %(key_id)s > 0
    ON CONFLICT DO NOTHING
)
UPDATE stretto.blobs AS kept SET touched_ns = greatest(kept.touched_ns, %(now_ns)s)
FROM there WHERE kept.blob_number = there.blob_number
RETURNING kept.digest, kept.size_bytes;

-- name: begin
INSERT INTO stretto.blobs (namespace, touched_ns) VALUES (%(namespace)s, %(now_ns)s)
RETURNING blob_number;

-- name: add
-- The row of an upload that the sweep took for dead is gone, and its chunks find no parent.
WITH heard_of AS (
    UPDATE stretto.blobs SET touched_ns = greatest(touched_ns, %(now_ns)s)
    WHERE blob_number = %(key)s RETURNING blob_number
)
INSERT INTO stretto.blob_chunks (blob_number, chunk_number, bytes)
SELECT blob_number, %(chunk_number)s, %(bytes)b FROM heard_of;

-- name: renew
UPDATE stretto.blobs SET touched_ns = greatest(touched_ns, %(now_ns)s)
WHERE namespace = %(namespace)s AND digest = %(digest)s;

-- name: commit
WITH kept AS (
    INSERT INTO stretto.blob_keys (blob_number, key_id, secret)
    SELECT blob_number, 0, %(secret)s::bytea FROM stretto.blobs
    WHERE blob_number = %(key)s AND digest IS NULL AND %(secret)s::bytea IS NOT NULL
)
UPDATE stretto.blobs
SET digest = %(digest)s, size_bytes = %(size_bytes)s,
    encrypted = %(secret)s::bytea IS NOT NULL,
    touched_ns = greatest(touched_ns, %(now_ns)s)
WHERE blob_number = %(key)s AND digest IS NULL;

-- name: discard
DELETE FROM stretto.blobs WHERE blob_number = %(key)s AND digest IS NULL;

-- name: find
SELECT blob_number, size_bytes, encrypted,
       (SELECT secret FROM stretto.blob_keys AS held
        WHERE held.blob_number = kept.blob_number LIMIT 1)
FROM stretto.blobs AS kept
WHERE namespace = %(namespace)s AND digest = %(digest)s;

-- name: hold_copied
-- The blobs of which these runs have copies of the keys, in the order in which naming locks them. Of
-- two runs that forget at the same time the later one thus finds that nobody else is left.
SELECT kept.blob_number FROM stretto.blobs AS kept
WHERE kept.blob_number IN (
    SELECT blob_number FROM stretto.blob_keys WHERE key_id = ANY(%(key_ids)s::bigint[])
)
ORDER BY kept.digest
FOR UPDATE;

-- name: forget_keys
-- After `hold_copied`, in its transaction. The key as it was put goes with the last run's.
WITH gone AS (
    DELETE FROM stretto.blob_keys WHERE key_id = ANY(%(key_ids)s::bigint[]) AND key_id > 0
    RETURNING blob_number
)
DELETE FROM stretto.blob_keys AS held USING gone
WHERE held.blob_number = gone.blob_number AND held.key_id = 0
  AND NOT EXISTS (
    SELECT FROM stretto.blob_keys AS other
    WHERE other.blob_number = held.blob_number
      AND other.key_id > 0 AND other.key_id <> ALL(%(key_ids)s::bigint[])
  );

-- name: read
SELECT bytes FROM stretto.blob_chunks
WHERE blob_number = %(key)s AND chunk_number = %(chunk_number)s;

-- name: untouched
SELECT namespace, digest, touched_ns FROM stretto.blobs
WHERE touched_ns < %(before_ns)s AND digest IS NOT NULL
  AND (touched_ns, namespace, digest) > (%(after_ns)s, %(after_namespace)s, %(after_digest)s)
ORDER BY touched_ns, namespace, digest LIMIT %(count)s;

-- name: delete
-- A touch that holds the row is waited for, and the condition then looks at what it wrote.
DELETE FROM stretto.blobs
WHERE namespace = %(namespace)s AND digest = %(digest)s AND touched_ns = %(touched_ns)s;

-- name: delete_uploads
DELETE FROM stretto.blobs WHERE digest IS NULL AND touched_ns < %(before_ns)s;
