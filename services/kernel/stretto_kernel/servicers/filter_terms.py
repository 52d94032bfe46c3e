"""The grammar of filters (of AIP-160): terms joined by AND, `NAME = VALUE`, also `>=` and `<`.

A value is a word, or text in double quotes in which a backslash takes the next character as it is.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from stretto_kernel.servicers.fields import Fields

FILTER_CHARACTERS_MAX = 4_000

_AND = re.compile(r"AND\b")
_REST = r'\s*(=|>=|<)\s*("(?:[^"\\]|\\.)*"|[A-Za-z_]+)\s*'


class Term(NamedTuple):
    """One comparison. value: without quotes; quoted: whether it had them."""

    name: str
    comparison: str
    value: str
    quoted: bool


def filter_terms(fields: Fields, text: str, names: str) -> list[Term]:
    """Return the terms of a filter over `names` (a pattern), noting what is wrong with it."""
    term = re.compile(rf"\s*({names}){_REST}")
    found: list[Term] = []
    seen: set[tuple[str, str]] = set()
    rest = fields.text("filter", text, characters_max=FILTER_CHARACTERS_MAX).strip()
    while rest:
        read = term.match(rest)
        if read is None or (read[1], read[2]) in seen:
            column = len(text) - len(rest) + 1
            fields.wrong("filter", f"cannot be read at column {column}: {rest[:40]!r}")
            break
        name, comparison, value = read[1], read[2], read[3]
        seen.add((name, comparison))
        quoted = value.startswith('"')
        plain = re.sub(r"\\(.)", r"\1", value[1:-1]) if quoted else value
        found.append(Term(name, comparison, plain, quoted))
        rest = rest[read.end() :]
        joined = _AND.match(rest)
        if rest and (joined is None or not rest[joined.end() :].strip()):
            fields.wrong("filter", "terms are joined by AND")
            break
        rest = rest[joined.end() :] if joined else ""
    return found
