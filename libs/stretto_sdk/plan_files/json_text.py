"""JSON texts of plans: parsed at full speed; scanned again for places once something is wrong."""

from __future__ import annotations

import json
import math
import re
from bisect import bisect_right
from collections.abc import Callable
from functools import cache
from itertools import accumulate

from stretto_sdk.plan_files.places import Place, Spot
from stretto_sdk.plan_files.text import DEPTH_MAX, PlanText, TextMistake, Unreadable, may_refer

_TOKEN = re.compile(
    r"""[ \t\n\r]*(?:(?P<mark>[\[\]{}:,])"""
    r"""|(?P<text>"[^"\\]*(?:\\.[^"\\]*)*")|(?P<word>[^\s\[\]{}:,"]+))"""
)
_INTEGER_DIGITS_MAX = 4_000
"""Python refuses to read longer ones."""


def read_json(text: str) -> PlanText:
    """Return what a JSON text says. Raises Unreadable where it is not JSON at all."""
    reading = _Reading()
    try:
        value: object = json.loads(
            text,
            object_pairs_hook=reading.members,
            parse_constant=reading.constant,
            parse_float=reading.float,
            parse_int=reading.integer,
        )
    except json.JSONDecodeError as error:
        # Where the parser gives up on depth differs from one Python to the next.
        raise Unreadable(_too_deep(text) or _no_json(error, text)) from None
    except RecursionError:
        raise Unreadable(
            _too_deep(text) or TextMistake(Place(1, 1), "is nested too deep")
        ) from None
    if _is_deep(value) and (too_deep := _too_deep(text)):
        raise Unreadable(too_deep)

    @cache
    def scanned() -> _Scan:
        return _Scan(text)

    # Only an escape can bring half a pair in: the text itself was valid UTF-8.
    doubtful = reading.doubtful or "\\u" in text
    mistakes = tuple(scanned().mistakes) if doubtful else ()
    return PlanText(value, lambda: scanned().top, mistakes, may_refer(text))


def _is_deep(value: object) -> bool:
    """Whether objects and lists are inside each other more than DEPTH_MAX times."""
    level = [value]
    for _ in range(DEPTH_MAX):
        level = [
            each
            for within in level
            if isinstance(within, dict | list)
            for each in (within.values() if isinstance(within, dict) else within)
            if isinstance(each, dict | list)
        ]
    return bool(level)


def _too_deep(text: str) -> TextMistake | None:
    depth = 0
    for found in _TOKEN.finditer(text):
        mark = found["mark"] or ""
        depth += (mark in "{[") - (mark in "}]") if mark else 0
        if depth > DEPTH_MAX:
            place = _place(text, found.start("mark"))
            return TextMistake(place, f"is nested more than {DEPTH_MAX} deep")
    return None


def _no_json(error: json.JSONDecodeError, text: str) -> TextMistake:
    before = text[: error.pos].rstrip()
    if text[error.pos : error.pos + 1] == ",":
        before = text[: error.pos + 1]
    if before.endswith(",") and text[len(before) :].lstrip()[:1] in ("]", "}"):
        # Some Pythons point at the comma, others at what stands behind it.
        return TextMistake(_place(text, len(before) - 1), "is not JSON: a comma too many")
    return TextMistake(Place(error.lineno, error.colno), f"is not JSON: {_told(error, text)}")


def _place(text: str, offset: int) -> Place:
    return Place(text.count("\n", 0, offset) + 1, offset - text.rfind("\n", 0, offset))


def _told(error: json.JSONDecodeError, text: str) -> str:
    if error.pos >= len(text.rstrip()):
        return "it ends too early; a bracket or a quote is not closed" if text.strip() else (
            "it is empty"
        )  # fmt: skip
    said = error.msg[0].lower() + error.msg[1:]
    if text[error.pos] == "'":
        return f'{said}; JSON has double quotes only: "..."'
    if error.msg == "Extra data":
        return "something stands after its end"
    return said


class _Reading:
    """Notes that a text holds something that JSON does not allow; where, the scan will tell."""

    def __init__(self) -> None:
        self.doubtful = False

    def members(self, pairs: list[tuple[str, object]]) -> dict[str, object]:
        value = dict(pairs)
        self.doubtful |= len(value) < len(pairs)
        return value

    def constant(self, _word: str) -> int:
        self.doubtful = True
        return 0

    def float(self, text: str) -> float:
        value = float(text)
        self.doubtful |= not math.isfinite(value)
        return value

    def integer(self, text: str) -> int:
        if len(text) > _INTEGER_DIGITS_MAX:
            self.doubtful = True
            return 0
        return int(text)


class _Scan:
    """The spots of a text that was parsed, and what in it the parser let pass."""

    def __init__(self, text: str) -> None:
        self.mistakes: list[TextMistake] = []
        self._starts = [0, *accumulate(len(line) + 1 for line in text.split("\n"))]
        self._open: list[Spot] = []
        self._key: tuple[str, Place] | None = None
        tops: list[Spot] = []
        wants_key = False
        position = 0
        while found := _TOKEN.match(text, position):
            position = found.end()
            written = found[found.lastgroup or 0]
            if written in "]}":
                self._open.pop()
            elif written in ":,":
                wants_key = written == "," and isinstance(self._open[-1].members, dict)
            elif wants_key:
                self._take_key(written, self._place(found))
                wants_key = False
            else:
                spot = self._value(written, self._place(found))
                if not self._open:
                    tops.append(spot)
                if written in "{[":
                    self._open.append(spot)
                    wants_key = written == "{"
        self.top = tops[0]

    def _place(self, found: re.Match[str]) -> Place:
        offset = found.start(found.lastgroup or 0)
        line = bisect_right(self._starts, offset)
        return Place(line, offset - self._starts[line - 1] + 1)

    def _take_key(self, written: str, place: Place) -> None:
        key = str(json.loads(written))
        self._check_text(written, key, place)
        within = self._open[-1].members
        assert isinstance(within, dict), "only an object has keys"
        if key in within:
            self._wrong(place, twice(key, within[key].key))
        self._key = key, place

    def _value(self, written: str, place: Place) -> Spot:
        key, key_place = self._key or ("", None)
        self._key = None
        members: dict[str, Spot] | list[Spot] | None = None
        if written in "{[":
            members = {} if written == "{" else []
        elif written.startswith('"'):
            self._check_text(written, str(json.loads(written)), place)
        else:
            self._check_word(written, place)
        spot = Spot(place, key_place, members)
        match self._open[-1].members if self._open else None:
            case dict() as siblings:
                siblings.setdefault(key, spot)
            case list() as siblings:
                siblings.append(spot)
        return spot

    def _check_text(self, written: str, text: str, place: Place) -> None:
        if "\\u" in written:
            try:
                text.encode()
            except UnicodeEncodeError:
                self._wrong(place, "an escape names half of a surrogate pair; write both halves")

    def _check_word(self, word: str, place: Place) -> None:
        if word.lstrip("-") in ("NaN", "Infinity"):
            self._wrong(place, f"{word} is no JSON number; write null, or text")
        elif word[0] in "-0123456789":
            check_number(word, lambda why: self._wrong(place, why))

    def _wrong(self, place: Place, description: str) -> None:
        self.mistakes.append(TextMistake(place, description))


def twice(key: str, first: Place | None) -> str:
    """Describe a key that an object has already."""
    where = f": first on line {first.line}" if first else ""
    return f"the key {json.dumps(key, ensure_ascii=False)} stands twice in one object{where}"


def check_number(word: str, wrong: Callable[[str], None]) -> None:
    """Note a number that cannot be held."""
    if word.lstrip("+-").isdecimal():
        if len(word) > _INTEGER_DIGITS_MAX:
            wrong(f"a number of {len(word)} digits is too large; write it as text")
    elif not math.isfinite(float(word)):
        wrong(f"the number {word[:40]} is too large")
