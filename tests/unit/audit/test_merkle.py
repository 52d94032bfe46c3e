"""Merkle trees: known roots, and a proof for every leaf that fits no other."""

from __future__ import annotations

import hashlib

from hypothesis import given
from hypothesis import strategies as st
from stretto_core.eventlog.merkle import (
    EMPTY_ROOT,
    Prover,
    leaf_hash,
    root_by_path,
    root_of,
)

LEAVES = st.lists(st.binary(min_size=32, max_size=32), min_size=1, max_size=70, unique=True)


def reference_root(leaves: list[bytes]) -> bytes:
    """RFC 6962 section 2.1 as it is written: split at the largest power of two below the count."""
    if len(leaves) == 1:
        return leaves[0]
    split = 1 << ((len(leaves) - 1).bit_length() - 1)
    left, right = reference_root(leaves[:split]), reference_root(leaves[split:])
    return hashlib.sha256(b"\x01" + left + right).digest()


@given(LEAVES)
def test_the_root_is_the_one_of_the_rfc(leaves: list[bytes]) -> None:
    assert root_of(leaves) == reference_root(leaves)


def test_the_root_of_nothing_is_the_hash_of_nothing() -> None:
    assert root_of([]) == EMPTY_ROOT == hashlib.sha256().digest()


def test_a_leaf_binds_the_position() -> None:
    assert leaf_hash(1, bytes(32)) != leaf_hash(2, bytes(32))


@given(LEAVES, st.data())
def test_a_path_leads_to_the_root_from_its_own_leaf_only(
    leaves: list[bytes], data: st.DataObject
) -> None:
    index = data.draw(st.integers(0, len(leaves) - 1))
    other = data.draw(st.integers(0, len(leaves) - 1))
    tree = Prover()
    for number, leaf in enumerate(leaves):
        tree.add(leaf, proven=number == index)
    root, path = tree.root_and_path()
    assert (tree.leaf_index, root) == (index, reference_root(leaves))
    assert root_by_path(leaves[index], index, len(leaves), path) == root
    if other != index:
        assert root_by_path(leaves[other], index, len(leaves), path) != root
    assert root_by_path(leaves[index], index, len(leaves), [*path, bytes(32)]) is None
    if path:
        assert root_by_path(leaves[index], index, len(leaves), path[:-1]) is None
