"""UUIDv7 as text: laid out as RFC 9562 says, read back in every form the standard library reads."""

from __future__ import annotations

import os
from uuid import UUID, uuid4

from hypothesis import given
from hypothesis import strategies as st
from stretto_core.ids import uuid7_text, uuid7_unix_ms
from stretto_core.ids.system import SystemIds


@given(st.integers(0, (1 << 48) - 1), st.integers(0, (1 << 74) - 1))
def test_the_text_holds_the_instant_and_the_random_bits(unix_ms: int, random_bits: int) -> None:
    text = uuid7_text(unix_ms, random_bits)
    parsed = UUID(text)
    assert str(parsed) == text
    assert (parsed.version, parsed.variant) == (7, "specified in RFC 4122")
    assert parsed.int >> 80 == unix_ms == uuid7_unix_ms(text)
    assert (parsed.int >> 64 & 0xFFF) << 62 | parsed.int & ((1 << 62) - 1) == random_bits


def test_other_forms_and_other_texts() -> None:
    text = uuid7_text(1_700_000_000_000, 5)
    for form in (text.upper(), text.replace("-", ""), f"{{{text}}}", f"urn:uuid:{text}"):
        assert uuid7_unix_ms(form) == 1_700_000_000_000
    for other in ("", "x", str(uuid4()), text[:-1], f"{text}0"):
        assert uuid7_unix_ms(other) is None


def test_a_source_only_rises() -> None:
    ids = SystemIds()
    minted = [ids.uuid7() for _ in range(2_000)]
    assert sorted(set(minted)) == minted


def test_a_forked_child_mints_other_ids_than_its_parent() -> None:
    ids = SystemIds()
    ids.uuid7()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, "".join(f"{ids.uuid7()}\n" for _ in range(50)).encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(writing)
    with os.fdopen(reading) as minted:
        children = set(minted.read().split())
    assert len(children) == 50
    assert not children & {ids.uuid7() for _ in range(50)}
