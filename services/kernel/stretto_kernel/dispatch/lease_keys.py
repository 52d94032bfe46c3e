"""The secret of a lease: proof that a write comes from the holder and not from a guess.

secret = first 16 bytes of HMAC-SHA256(lease key of the partition, work item, epoch). Never stored,
logged or shown; recomputed when needed, so that leases survive a restart of the kernel. Pure.
"""

from __future__ import annotations

import hmac
from functools import lru_cache

from stretto_core.eventlog.recorded import LeaseKeys

SECRET_BYTES = 16


def lease_secret(key: bytes, work_item: str, epoch: int) -> bytes:
    """Return the secret of the lease with `epoch` on `work_item`."""
    mac = _keyed(key).copy()
    mac.update(f"{work_item}\0{epoch}".encode())
    return mac.digest()[:SECRET_BYTES]


def is_lease_secret(keys: LeaseKeys, work_item: str, epoch: int, presented: bytes) -> bool:
    """Whether `presented` is the secret under the current or the previous key; constant time."""
    if hmac.compare_digest(lease_secret(keys.current, work_item, epoch), presented):
        return True
    return keys.previous is not None and hmac.compare_digest(
        lease_secret(keys.previous, work_item, epoch), presented
    )


@lru_cache(maxsize=4)
def _keyed(key: bytes) -> hmac.HMAC:
    """Copied, never changed: keying costs more than a work item's name, and lets go of the GIL."""
    return hmac.new(key, digestmod="sha256")
