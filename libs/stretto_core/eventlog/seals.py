"""Seals: what a partition's log was up to a position, signed, each bound to the one before.

Pure but for the key. A seal covers the events after the one before it; who holds an old seal and
the public key finds any change of what either covers, whoever made it and whatever they may write.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from stretto.eventlog.v1.seal_pb2 import LogSealed

from stretto_core.eventlog.chain import GENESIS
from stretto_core.eventlog.merkle import leaf_hash, root_of
from stretto_core.ids import Namespace, Partition, StreamId

AUDIT_NAMESPACE = Namespace("stretto-audit")
SEALS_SUFFIX = "-seals"
_PURPOSE = b"stretto.seal.v1\x00"


def seals_stream(partition: Partition) -> StreamId:
    """Return the stream that holds a partition's seals."""
    return StreamId(f"{partition}{SEALS_SUFFIX}")


class SealKey:
    """A partition's signing key. Never shown: its repr tells the fingerprint."""

    def __init__(self, private_bytes: bytes) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(private_bytes)
        self.public_bytes = self._key.public_key().public_bytes_raw()

    def __repr__(self) -> str:
        """Tell which key it is, never the key."""
        return f"SealKey({fingerprint(self.public_bytes)})"

    def sign(self, message: bytes) -> bytes:
        """Return the signature, 64 bytes."""
        return self._key.sign(message)


def fingerprint(public_key: bytes) -> str:
    """Return how people compare public keys: SHA-256 in hexadecimal."""
    return hashlib.sha256(public_key).hexdigest()


def new_seal(
    key: SealKey,
    partition: Partition,
    previous: LogSealed | None,
    covered: Sequence[tuple[int, bytes]],
) -> LogSealed:
    """Return the seal after `previous` over (position, event hash) of all since, in order."""
    assert covered, "a seal covers at least one event"
    seal = LogSealed(
        partition=partition,
        after_position=0 if previous is None else previous.position,
        position=covered[-1][0],
        event_count=len(covered),
        root=root_of([leaf_hash(position, event_hash) for position, event_hash in covered]),
        previous_seal_hash=GENESIS if previous is None else seal_hash(previous),
        public_key=key.public_bytes,
    )
    seal.signature = key.sign(_signed(seal))
    return seal


def seal_hash(seal: LogSealed) -> bytes:
    """Return the hash that the next seal names, 32 bytes."""
    return hashlib.sha256(_signed(seal)).digest()


def is_signed(seal: LogSealed) -> bool:
    """Tell whether the seal's own key signed it."""
    try:
        key = Ed25519PublicKey.from_public_bytes(seal.public_key)
        key.verify(seal.signature, _signed(seal))
    except (InvalidSignature, ValueError):
        return False
    return True


def _signed(seal: LogSealed) -> bytes:
    partition = seal.partition.encode()
    return b"".join(
        (
            _PURPOSE,
            len(partition).to_bytes(2, "big"),
            partition,
            seal.after_position.to_bytes(8, "big"),
            seal.position.to_bytes(8, "big"),
            seal.event_count.to_bytes(8, "big"),
            seal.root,
            seal.previous_seal_hash,
            seal.public_key,
        )
    )
