"""Spans of time as people write them."""

from __future__ import annotations

import pytest
from stretto_sdk.durations import parse_duration_ns


@pytest.mark.parametrize(
    ("text", "expected_ns"),
    [
        ("0s", 0),
        ("500ms", 500_000_000),
        ("1.5s", 1_500_000_000),
        ("1m30s", 90 * 10**9),
        ("2h", 7_200 * 10**9),
        ("1d", 86_400 * 10**9),
        ("0.000000001s", 1),
    ],
)
def test_a_span_is_read(text: str, expected_ns: int) -> None:
    assert parse_duration_ns(text) == expected_ns


@pytest.mark.parametrize("text", ["", "30", "s", "-1s", "1 s", "1s ", "1y", "1,5s", "99999999d"])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="span of time"):
        parse_duration_ns(text)
