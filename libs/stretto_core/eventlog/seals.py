"""Seals: what a partition's log was up to a position, signed, each bound to the one before.

Pure but for the key. A seal covers the events after the one before it; who holds an old seal and
the public key finds any change of what either covers, whoever made it and whatever they may write.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from stretto.eventlog.v1.seal_pb2 import LogSealed

from stretto_core.eventlog.chain import GENESIS
from stretto_core.ids import Namespace, Partition, StreamId

AUDIT_NAMESPACE = Namespace("stretto-audit")
SEALS_SUFFIX = "-seals"
SEALED_TYPE = LogSealed.DESCRIPTOR.full_name
_PURPOSE = b"stretto.seal.v1\x00"


def seals_stream(partition: Partition) -> StreamId:
    """Return the stream that holds a partition's seals."""
    return StreamId(f"{partition}{SEALS_SUFFIX}")


class SealKey:
    """A partition's signing key, made of 32 secret bytes. Its repr tells the fingerprint only."""

    def __init__(self, private_bytes: bytes) -> None:
        # Loaded at the first use: a kernel's start is a budget.
        from cryptography.hazmat.primitives.asymmetric.ed25519 import (  # noqa: PLC0415
            Ed25519PrivateKey,
        )

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


@dataclass(frozen=True, slots=True)
class Covered:
    """The events that a seal covers: all after `after_position`, up to `position`.

    root: over their leaves in order (`merkle.leaf_hash`), 32 bytes.
    """

    after_position: int
    position: int
    event_count: int
    root: bytes


def new_seal(
    key: SealKey, partition: Partition, previous: LogSealed | None, covered: Covered
) -> LogSealed:
    """Return the seal after `previous` over all since."""
    after_position = 0 if previous is None else previous.position
    assert covered.after_position == after_position, "seals follow one another without a gap"
    assert 0 < covered.event_count <= covered.position - after_position, "it covers some events"
    seal = LogSealed(
        partition=partition,
        after_position=after_position,
        position=covered.position,
        event_count=covered.event_count,
        root=covered.root,
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
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415 - see SealKey
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (  # noqa: PLC0415
        Ed25519PublicKey,
    )

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
