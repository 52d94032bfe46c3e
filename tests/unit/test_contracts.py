"""What buf cannot hold of the contracts: every RPC's comment has its four parts."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PROTO = Path(__file__).resolve().parents[2] / "proto"
RPC = re.compile(r"((?:^ *//[^\n]*\n)+) *rpc (\w+)\(", re.MULTILINE)
PARTS = ("Idempotency:", "Codes:", "Limits:")


def rpcs() -> Iterator[tuple[str, str]]:
    for path in sorted(PROTO.rglob("*_service.proto")):
        for comment, name in RPC.findall(path.read_text(encoding="utf-8")):
            yield f"{path.stem}.{name}", comment


def test_the_contracts_have_services() -> None:
    declared = sum(
        len(re.findall(r"^ *rpc ", path.read_text(encoding="utf-8"), re.MULTILINE))
        for path in PROTO.rglob("*.proto")
    )
    assert declared == len(list(rpcs())) > 20, "every RPC has a comment and is checked below"


@pytest.mark.parametrize(("name", "comment"), list(rpcs()))
def test_a_comment_says_what_idempotency_codes_and_limits(name: str, comment: str) -> None:
    places = [comment.find(part) for part in PARTS]
    assert -1 not in places, f"{name} lacks {PARTS[places.index(-1)]}"
    assert places == sorted(places), f"{name}: the parts stand in the order of {PARTS}"
    assert comment[: places[0]].replace("/", "").strip(), f"{name} does not say what it does"
