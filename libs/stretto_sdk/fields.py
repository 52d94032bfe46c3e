"""Reads the members of a JSON object and collects every mistake with its path.

A reader asks for each member by name and type; whatever was never asked for is unknown, and the
nearest name that was asked for is suggested. Nothing is raised until the end: a person who wrote
five mistakes reads of five, not of the first.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from typing import TypeVar

from google.protobuf.duration_pb2 import Duration
from stretto_core.errors import FieldViolation, InvalidArgument

from stretto_sdk.durations import EXPLANATION, duration_of
from stretto_sdk.strict_json import TYPE_NAMES

Word = TypeVar("Word")
SHOWN_MISTAKES_MAX = 200
INT32_MAX = 2**31 - 1
WHOLE = "(the whole)"
"""The path of a mistake that is no single field's."""


class Mistakes:
    """Every mistake found so far, in the order of the text."""

    def __init__(self) -> None:
        self._violations: dict[str, str] = {}
        self._of_keys: set[str] = set()

    def add(self, path: str, description: str, *, of_key: bool = False) -> None:
        """Note one mistake; `path` is empty for the whole document. The first of a path stands.

        of_key: it is the name of the field that is wrong, not its value.
        """
        self._violations.setdefault(path or WHOLE, description)
        if of_key:
            self._of_keys.add(path)

    def found(self) -> list[tuple[str, str, bool]]:
        """Return the path, the description and `of_key` of each."""
        return [(path, why, path in self._of_keys) for path, why in self._violations.items()]

    def raise_if_any(self, source: str) -> None:
        """Raise InvalidArgument with all of them when there is one."""
        if self._violations:
            raise self.refusal(source)

    def refusal(self, source: str) -> InvalidArgument:
        """Return them all as one refusal, for people a line each."""
        count = len(self._violations)
        lines = [f"{path}: {description}" for path, description in self._violations.items()]
        if count > SHOWN_MISTAKES_MAX:
            lines[SHOWN_MISTAKES_MAX:] = [f"... and {count - SHOWN_MISTAKES_MAX} more"]
        noun = "mistake" if count == 1 else "mistakes"
        return InvalidArgument(
            "\n  ".join([f"{source} has {count} {noun}:", *lines]),
            violations=[FieldViolation(*each) for each in self._violations.items()],
        )


class Fields:
    """The members of one JSON object at `path`; a value of another type reads as empty."""

    def __init__(self, value: object, path: str, mistakes: Mistakes) -> None:
        self.path = path
        self.mistakes = mistakes
        self._known: dict[str, None] = {}
        if isinstance(value, Mapping):
            self._members: Mapping[str, object] = value
        else:
            self._members = {}
            mistakes.add(path, f"must be an object, not {name_of(value)}")

    def at(self, name: str) -> str:
        """Return the path of a member."""
        plain = name.isidentifier()
        step = name if plain else f"[{json.dumps(name, ensure_ascii=False)}]"
        return f"{self.path}.{step}" if self.path and plain else f"{self.path}{step}"

    def has(self, name: str) -> bool:
        """Tell whether the member is there and not null; it is known from now on."""
        self._known[name] = None
        return self._members.get(name) is not None

    def wrong(self, name: str, description: str) -> None:
        """Note a mistake of a member."""
        self.mistakes.add(self.at(name), description)

    def value(self, name: str) -> object:
        """Return the member as it is, None when it is not there."""
        self._known[name] = None
        return self._members.get(name)

    def text(self, name: str, *, required: bool = False) -> str:
        """Return a string member, "" when it is not there."""
        value = self._typed(name, str)
        if required and not value and self._members.get(name) in (None, ""):
            self.wrong(name, "is required")
        return value or ""

    def boolean(self, name: str) -> bool:
        """Return a boolean member, False when it is not there."""
        return self._typed(name, bool) or False

    def integer(self, name: str, *, low: int, high: int = INT32_MAX) -> int:
        """Return an integer member of `low` to `high`, 0 when it is not there."""
        value = self._typed(name, int)
        if value is None:
            return 0
        if not low <= value <= high:
            self.wrong(name, f"must be from {low} to {high}")
            return 0
        return value

    def number(self, name: str) -> float | None:
        """Return a number member, None when it is not there."""
        value = self.value(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float):
            self.wrong(name, f"must be a number, not {name_of(value)}")
            return None
        try:
            return float(value)
        except OverflowError:
            self.wrong(name, "is too large")
            return None

    def duration(self, name: str) -> Duration | None:
        """Return a span of time, None when it is not there."""
        value = self.value(name)
        if value is None:
            return None
        if not isinstance(value, str | timedelta):
            self.wrong(name, f"must be {EXPLANATION}, not {name_of(value)}")
            return None
        try:
            return duration_of(value)
        except ValueError as error:
            self.wrong(name, str(error))
            return None

    def word(self, name: str, words: Mapping[str, Word], default: Word) -> Word:
        """Return what a word member stands for, `default` when it is not there."""
        value = self._typed(name, str)
        if value is None:
            return default
        if value not in words:
            near = nearest(value, words)
            self.wrong(name, f"{json.dumps(value)} is not one of {', '.join(words)}{near}")
            return default
        return words[value]

    def texts(self, name: str) -> list[str]:
        """Return a list of strings, [] when it is not there."""
        values = self._typed(name, list) or []
        for index, value in enumerate(values):
            if not isinstance(value, str):
                path = f"{self.at(name)}[{index}]"
                self.mistakes.add(path, f"must be a string, not {name_of(value)}")
        return [value for value in values if isinstance(value, str)]

    def text_map(self, name: str) -> dict[str, str]:
        """Return an object whose values are strings, {} when it is not there."""
        found: dict[str, str] = {}
        for path, key, value in self.members(name):
            if isinstance(value, str):
                found[key] = value
            else:
                self.mistakes.add(path, f"must be a string, not {name_of(value)}")
        return found

    def members(self, name: str) -> Iterable[tuple[str, str, object]]:
        """Return (path, key, value) of each member of an object, nothing when it is not there."""
        values = self.value(name)
        if values is None:
            return
        if not isinstance(values, Mapping):
            self.wrong(name, f"must be an object, not {name_of(values)}")
            return
        within = Fields(values, self.at(name), self.mistakes)
        for key, value in values.items():
            yield within.at(key), key, value

    def each(self, name: str, read: Callable[[object, str, Mistakes], Word]) -> list[Word]:
        """Return what `read(value, path, mistakes)` makes of each element, [] when not there."""
        values = self._typed(name, list) or []
        at = self.at(name)
        return [read(value, f"{at}[{index}]", self.mistakes) for index, value in enumerate(values)]

    def finish(self) -> None:
        """Note every member that nobody asked for. Call it last."""
        for name in self._members:
            if name not in self._known:
                near = nearest(name, self._known) or f"; known: {', '.join(self._known)}"
                self.wrong(name, f"is not a field here{near}")

    def _typed(self, name: str, kind: type[Word]) -> Word | None:
        value = self.value(name)
        if value is None:
            return None
        # A bool is an int to Python; to a reader of JSON it is not.
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            self.wrong(name, f"must be {TYPE_NAMES[kind]}, not {name_of(value)}")
            return None
        return value


def name_of(value: object) -> str:
    """Return how a person calls the type of a value."""
    return TYPE_NAMES.get(type(value), f"a Python {type(value).__name__}")


def nearest(name: str, known: Iterable[str]) -> str:
    """Return the question whether the nearest known name was meant, "" when none is near."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"; did you mean {json.dumps(near[0])}?" if near else ""
