"""Merkle trees over events, as RFC 6962 makes them: roots, and proofs that one event is in one.

Pure. A leaf is an event's position and hash, so that the tree binds what the stored bytes cannot
say: where in the log the event lies.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

EMPTY_ROOT = hashlib.sha256(b"").digest()


def leaf_hash(position: int, event_hash: bytes) -> bytes:
    """Return the leaf of the event with this hash (32 bytes) at this position (>= 0)."""
    return hashlib.sha256(b"\x00" + position.to_bytes(8, "big") + event_hash).digest()


class Prover:
    """A tree that grows at its right edge and keeps the way from one of its leaves to the root.

    A leaf costs one or two hashes, so that a large tree is made in as small stretches as one likes.
    """

    __slots__ = ("_path", "_peaks", "leaf_count", "leaf_index")

    def __init__(self) -> None:
        # Roots of whole subtrees, the largest first, and whether the leaf is in it.
        self._peaks: list[tuple[bytes, bool]] = []
        self._path: list[bytes] = []
        self.leaf_count = 0
        self.leaf_index: int | None = None
        """Which leaf the way begins at; None until it was added."""

    def add(self, leaf: bytes, *, proven: bool = False) -> None:
        """Add the next leaf, 32 bytes. proven: it is the one, which comes once."""
        if proven:
            self.leaf_index = self.leaf_count
        node, count = (leaf, proven), self.leaf_count
        while count & 1:
            node = _joined(self._peaks.pop(), node, self._path)
            count >>= 1
        self._peaks.append(node)
        self.leaf_count += 1

    def root_and_path(self) -> tuple[bytes, list[bytes]]:
        """Return the root, and the hashes that lead from the leaf to it, leaf first."""
        assert self.leaf_index is not None, "a proof is of a leaf of the tree"
        path = list(self._path)
        *larger, node = self._peaks
        for peak in reversed(larger):
            node = _joined(peak, node, path)
        return node[0], path


def root_of(leaves: Sequence[bytes]) -> bytes:
    """Return the root over the leaves, 32 bytes; of none, the hash of nothing."""
    if not leaves:
        return EMPTY_ROOT
    level = list(leaves)
    while len(level) > 1:
        level = _next_level(level)
    return level[0]


def root_by_path(leaf: bytes, index: int, leaf_count: int, path: Sequence[bytes]) -> bytes | None:
    """Return the root that `path` leads to, None when it has not the length such a tree gives."""
    rest, width = list(path), leaf_count
    while width > 1:
        if index ^ 1 < width:
            if not rest:
                return None
            sibling = rest.pop(0)
            leaf = _node(sibling, leaf) if index % 2 else _node(leaf, sibling)
        index //= 2
        width = (width + 1) // 2
    return None if rest else leaf


def _joined(
    left: tuple[bytes, bool], right: tuple[bytes, bool], path: list[bytes]
) -> tuple[bytes, bool]:
    """Return the node over two; the way goes through it if it went through one of them."""
    if left[1] or right[1]:
        path.append(right[0] if left[1] else left[0])
    return _node(left[0], right[0]), left[1] or right[1]


def _next_level(level: Sequence[bytes]) -> list[bytes]:
    """Pair neighbours; an odd one at the end rises as it is, which is RFC 6962's tree."""
    paired = [_node(level[i], level[i + 1]) for i in range(0, len(level) - 1, 2)]
    return [*paired, level[-1]] if len(level) % 2 else paired


def _node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()
