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
-- Blobs are compressed already or not worth it; and a chunk is read as it lies.
ALTER TABLE stretto.blob_chunks ALTER COLUMN bytes SET STORAGE EXTERNAL;

-- name: exists
SELECT to_regclass('stretto.blob_chunks') IS NOT NULL;

-- name: touch
-- Rows are locked in the order of their digests: two commands that name the same blobs in another
-- order wait for each other and never in a circle. A deletion that holds a row is waited for.
WITH named AS (
    SELECT * FROM unnest(%(digests)s::bytea[], %(sizes_bytes)s::bigint[])
        AS asked (digest, size_bytes)
), there AS (
    SELECT kept.blob_number FROM stretto.blobs AS kept
    JOIN named ON kept.digest = named.digest AND kept.size_bytes = named.size_bytes
    WHERE kept.namespace = %(namespace)s
    ORDER BY kept.digest
    FOR UPDATE OF kept
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
UPDATE stretto.blobs
SET digest = %(digest)s, size_bytes = %(size_bytes)s,
    touched_ns = greatest(touched_ns, %(now_ns)s)
WHERE blob_number = %(key)s AND digest IS NULL;

-- name: discard
DELETE FROM stretto.blobs WHERE blob_number = %(key)s AND digest IS NULL;

-- name: find
SELECT blob_number, size_bytes FROM stretto.blobs
WHERE namespace = %(namespace)s AND digest = %(digest)s;

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
