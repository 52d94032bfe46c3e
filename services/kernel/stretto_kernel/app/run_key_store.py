"""Data keys as the kernel keeps them: the port of the table that holds them, with fsync.

A key is one run's, found by its id. The keys of blobs lie with the blobs (`blob_store`). Knows no
cipher.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple, Protocol

from stretto_core.ids import RunId


class StoredKey(NamedTuple):
    """A run's key as it lies there. secret: 32 bytes."""

    key_id: int
    secret: bytes

    def __repr__(self) -> str:
        """Never the secret: this ends in logs."""
        return f"StoredKey({self.key_id})"


class KeyOfRun(NamedTuple):
    """A key, and the run that it was made for."""

    key_id: int
    run_id: RunId


class RunKeyStore(Protocol):
    """The keys of all partitions. Every call raises Unavailable when the store does not answer."""

    async def make(self, secrets: Mapping[RunId, bytes]) -> Mapping[RunId, StoredKey]:
        """Return the key of each run: one with this secret, or what it has already. On disk."""
        ...

    async def find(self, key_ids: Collection[int]) -> Mapping[int, bytes]:
        """Return the secrets of those that are there, by id."""
        ...

    async def mark(self, key_id: int) -> None:
        """Note that the key is about to be destroyed. On disk; idempotent."""
        ...

    async def marked(self) -> Sequence[KeyOfRun]:
        """Return the keys that are marked and not destroyed."""
        ...

    async def unmark(self, key_id: int) -> None:
        """Take the mark off."""
        ...

    async def destroy(self, key_id: int) -> None:
        """Destroy the key. On disk; idempotent."""
        ...


class SweptRunKeys(Protocol):
    """The keys that may be of no run. Every call raises Unavailable."""

    async def old(self, *, after_key_id: int, count_max: int) -> Sequence[KeyOfRun]:
        """Return keys, in the order of ids, that no start has asked for within a day."""
        ...

    async def sweep(self, key_ids: Collection[int]) -> int:
        """Delete those of the keys that are still as `old` found them; return how many."""
        ...
