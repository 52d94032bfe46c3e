"""The data key of one run: encrypts what its facts and logs carry, and keys its digests.

Ciphertext is self-describing: 1 byte 0x01, the key id (8 bytes, big-endian), a random nonce (12
bytes), AES-256-GCM of the plain bytes with that header and a context as associated data. A context
says what the bytes are, so that one kind of ciphertext is never taken for another. Nonces are
random and a key serves one run: 2^32 encryptions under it stay far out of reach. The library is
loaded with the first key (ADR-0024).
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from typing import TYPE_CHECKING

from stretto_core.errors import Internal

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

SECRET_BYTES = 32
NONCE_BYTES = 12
TAG_BYTES = 16
_FORM = b"\x01"
_KEY_ID_BYTES = 8
_HEADER_BYTES = len(_FORM) + _KEY_ID_BYTES
_PREFIX_BYTES = _HEADER_BYTES + NONCE_BYTES

RandomBytes = Callable[[int], bytes]
"""Returns so many bytes that nobody can guess."""


class Undecryptable(Internal):
    """Stored bytes are not what was encrypted with their key: a damaged store."""

    reason = "INTERNAL"


class DataKey:
    """A run's key. Its repr tells the id, never the secret."""

    def __init__(self, key_id: int, secret: bytes, random_bytes: RandomBytes) -> None:
        assert key_id > 0, "0 stands for no key"
        assert len(secret) == SECRET_BYTES, "a key has 256 bits"
        self.key_id = key_id
        self.digest_key = hmac.digest(secret, b"stretto.digests.v1", "sha256")
        self._random_bytes = random_bytes
        self._cipher = cipher_of(hmac.digest(secret, b"stretto.values.v1", "sha256"))
        self._header = _FORM + key_id.to_bytes(_KEY_ID_BYTES, "big")

    def __repr__(self) -> str:
        """Tell which key it is."""
        return f"DataKey({self.key_id})"

    def keyed(self, digest: bytes) -> bytes:
        """Return what stands in facts for a digest over values."""
        return hmac.digest(self.digest_key, digest, "sha256")

    def encrypt(self, plain: bytes, context: bytes) -> bytes:
        """Return the ciphertext, under a fresh nonce."""
        nonce = self._random_bytes(NONCE_BYTES)
        return self._header + nonce + self._cipher.encrypt(nonce, plain, self._header + context)

    def decrypt(self, ciphertext: bytes, context: bytes) -> bytes:
        """Return the plain bytes. Raises Undecryptable."""
        from cryptography.exceptions import InvalidTag  # noqa: PLC0415 - loaded with the first key

        nonce = ciphertext[_HEADER_BYTES:_PREFIX_BYTES]
        try:
            return self._cipher.decrypt(nonce, ciphertext[_PREFIX_BYTES:], self._header + context)
        except (InvalidTag, ValueError) as error:
            message = "ciphertext does not fit its key"
            raise Undecryptable(message, key_id=str(self.key_id)) from error


def cipher_of(secret: bytes) -> AESGCM:
    """Return the cipher of a key of 256 bits."""
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415 - 20 ms

    return AESGCM(secret)


def key_id_of(ciphertext: bytes) -> int:
    """Return the key that the bytes were encrypted with; 0 when they are no ciphertext of ours."""
    if len(ciphertext) < _PREFIX_BYTES + TAG_BYTES or not ciphertext.startswith(_FORM):
        return 0
    return int.from_bytes(ciphertext[len(_FORM) : _HEADER_BYTES], "big")
