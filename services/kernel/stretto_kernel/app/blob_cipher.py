"""How the bytes of a blob are encrypted: chunk by chunk, so that a range is read by itself.

AES-256-GCM under a key that serves one blob, so a chunk's number is its nonce, and whether it is
the last is part of it: chunks cannot be swapped, left out or cut off unnoticed. A stored chunk is
as large as a clear one; it carries 16 bytes less. Pure.
"""

from __future__ import annotations

from stretto_core.errors import InvalidArgument

from stretto_kernel.app.blob_store import CHUNK_BYTES
from stretto_kernel.app.data_key import NONCE_BYTES, TAG_BYTES, Undecryptable, cipher_of
from stretto_kernel.domain.run.findings import BLOB_BYTES_MAX

PLAIN_CHUNK_BYTES = CHUNK_BYTES - TAG_BYTES
_LAST, _NOT_LAST = b"\x01", b"\x00"


class BlobCipher:
    """The cipher of one blob. secret: 32 bytes, of this blob alone."""

    def __init__(self, secret: bytes) -> None:
        self._cipher = cipher_of(secret)

    def encrypt(self, number: int, plain: bytes, *, last: bool) -> bytes:
        """Return the chunk as it is stored; numbers count from 0, each once."""
        return self._cipher.encrypt(_nonce(number, last=last), plain, None)

    def decrypt(self, number: int, chunk: bytes, *, last: bool) -> bytes:
        """Return the plain chunk. Raises Undecryptable."""
        from cryptography.exceptions import InvalidTag  # noqa: PLC0415 - loaded with the first key

        try:
            return self._cipher.decrypt(_nonce(number, last=last), chunk, None)
        except InvalidTag as error:
            raise Undecryptable("a chunk does not fit its blob", number=str(number)) from error


def chunk_count(stored_bytes: int) -> int:
    """Return how many chunks an encrypted blob of that stored size has."""
    return -(-stored_bytes // CHUNK_BYTES)


def plain_bytes(stored_bytes: int) -> int:
    """Return how many bytes an encrypted blob of that stored size carries."""
    return stored_bytes - TAG_BYTES * chunk_count(stored_bytes)


def check_size(size_bytes: int) -> None:
    """Refuse a blob that would be too large once it is encrypted. Raises InvalidArgument."""
    chunks = max(1, -(-size_bytes // PLAIN_CHUNK_BYTES))
    if size_bytes + TAG_BYTES * chunks > BLOB_BYTES_MAX:
        raise InvalidArgument(
            f"an encrypted blob has at most {BLOB_BYTES_MAX} bytes as it is stored, 16 in each "
            f"{CHUNK_BYTES} of its own",
            bytes_max=str(BLOB_BYTES_MAX),
        )


def _nonce(number: int, *, last: bool) -> bytes:
    return number.to_bytes(NONCE_BYTES - 1, "big") + (_LAST if last else _NOT_LAST)
