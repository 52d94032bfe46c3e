"""The shapes of which a form is declared, once, for its reader and for its JSON Schema.

A shape reads a parsed value, notes every mistake in it with its path, and returns what the contract
wants; the same shape describes itself as JSON Schema (draft 2020-12), in which a parameter may
stand wherever a plan file may have one. A null member is one that is not there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Protocol

from google.protobuf.duration_pb2 import Duration
from stretto.common.v1.payload_pb2 import Payload
from stretto_core.errors import InvalidArgument

from stretto_sdk.durations import EXPLANATION, SPAN_PATTERN, duration_of
from stretto_sdk.fields import INT32_MAX, Mistakes, name_of, nearest
from stretto_sdk.plan_files.places import step_text
from stretto_sdk.strict_json import to_json

JsonSchema = dict[str, Any]
_ELSEWHERE = dict.fromkeys(("depends_on", "dependencies", "needs", "parents"), "after")
"""How other systems call a field: what is meant by it here."""
PARAMETER = r"\$\{params\.[a-z][a-z0-9_]{0,63}\}"
"""How a parameter stands in a plan file."""


class At:
    """A field of what is read: its path, written out only when it is mistaken."""

    __slots__ = ("_mistakes", "_parent", "_step")

    def __init__(
        self, mistakes: Mistakes, parent: At | None = None, step: str | int | None = None
    ) -> None:
        self._mistakes = mistakes
        self._parent = parent
        self._step = step

    @property
    def path(self) -> str:
        """The path as a person reads it."""
        before = self._parent.path if self._parent else ""
        if self._step is None:
            return before
        text = step_text(self._step)
        return before + text if before else text.removeprefix(".")

    def within(self, step: str | int) -> At:
        """Return a member or an element of it."""
        return At(self._mistakes, self, step)

    def wrong(self, description: str, *, of_key: bool = False) -> None:
        """Note a mistake of it."""
        self._mistakes.add(self.path, description, of_key=of_key)


class Shape(Protocol):
    """What a value must look like."""

    def read(self, value: object, at: At) -> Any:
        """Return what the contract wants of a value that is not null; None after a mistake."""

    def schema(self) -> JsonSchema:
        """Return the JSON Schema of the same values."""


def _pattern(written: str) -> str:
    """Return the pattern of a text of that pattern, or one with a parameter in it."""
    return f"^(?:{written})$|{PARAMETER}"


def _or_parameter(kind: str, **more: object) -> JsonSchema:
    return {"type": [kind, "string"], "pattern": f"^{PARAMETER}$", **more}


def _or_null(described: JsonSchema) -> JsonSchema:
    """Return the schema of the same, or of null: a member that is left out."""
    match described:
        case {"type": list() as kinds}:
            return {**described, "type": [*kinds, "null"]}
        case {"anyOf": list() as choices}:
            return {**described, "anyOf": [*choices, {"type": "null"}]}
        case {"if": _, "else": described_else}:
            return _if_written(["string", "null"], described_else)
    return described


def _if_written(kinds: list[str], otherwise: JsonSchema) -> JsonSchema:
    """Return the schema of a parameter, or of something else: told so that editors can follow."""
    return {
        "if": {"type": kinds},
        "then": {"type": kinds, "pattern": f"^{PARAMETER}$"},
        "else": otherwise,
    }


def parameter_or(*choices: JsonSchema) -> JsonSchema:
    """Return the schema of any of the choices, or of a parameter in their place."""
    return {"anyOf": [*choices, {"$ref": "#/$defs/parameter"}]}


@dataclass(frozen=True, slots=True)
class Text:
    """Text. pattern: what the whole of it matches; rule: the same in words."""

    pattern: str = ""
    rule: str = ""
    words: tuple[str, ...] = ()

    def read(self, value: object, at: At) -> str | None:
        """Return the text."""
        if not isinstance(value, str):
            at.wrong(f"must be a string, not {name_of(value)}")
            return None
        if self.pattern and not re.fullmatch(self.pattern, value):
            at.wrong(f"{json.dumps(value[:80], ensure_ascii=False)} {self.rule}"
                     f"{nearest(value, self.words)}")  # fmt: skip
            return None
        return value

    def schema(self) -> JsonSchema:
        """Return the schema of the text; `words` are offered first."""
        described: JsonSchema = {"type": ["string"]}
        if self.pattern:
            described["pattern"] = _pattern(self.pattern)
        if self.words:
            described = {"anyOf": [{"enum": list(self.words)}, described]}
        return described


@dataclass(frozen=True, slots=True)
class Flag:
    """True or false."""

    def read(self, value: object, at: At) -> bool | None:
        """Return the boolean."""
        if isinstance(value, bool):
            return value
        told = json.dumps(value) if isinstance(value, str) and len(value) < 10 else ""
        at.wrong(f"must be true or false, not {f'the text {told}' if told else name_of(value)}")
        return None

    def schema(self) -> JsonSchema:
        """Return the schema of the boolean."""
        return _or_parameter("boolean")


@dataclass(frozen=True, slots=True)
class Integer:
    """A whole number from low to high."""

    low: int
    high: int = INT32_MAX

    def read(self, value: object, at: At) -> int | None:
        """Return the number; 3.0 is 3."""
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            at.wrong(f"must be a whole number, not {name_of(value)}")
            return None
        if not self.low <= value <= self.high:
            at.wrong(f"must be from {self.low} to {self.high}")
            return None
        return value

    def schema(self) -> JsonSchema:
        """Return the schema of the number."""
        return _or_parameter("integer", minimum=self.low, maximum=self.high)


@dataclass(frozen=True, slots=True)
class Number:
    """A number from low to high."""

    low: float
    high: float

    def read(self, value: object, at: At) -> float | None:
        """Return the number."""
        if isinstance(value, bool) or not isinstance(value, int | float):
            at.wrong(f"must be a number, not {name_of(value)}")
            return None
        if not self.low <= value <= self.high:
            at.wrong(f"must be from {self.low:g} to {self.high:g}")
            return None
        return float(value)

    def schema(self) -> JsonSchema:
        """Return the schema of the number."""
        return _or_parameter("number", minimum=self.low, maximum=self.high)


@dataclass(frozen=True, slots=True)
class Span:
    """A span of time with its unit."""

    def read(self, value: object, at: At) -> Duration | None:
        """Return the span; a program may give a timedelta."""
        if not isinstance(value, str | timedelta):
            at.wrong(f"must be {EXPLANATION}, not {name_of(value)}")
            return None
        try:
            return duration_of(value)
        except ValueError as error:
            at.wrong(str(error))
            return None

    def schema(self) -> JsonSchema:
        """Return the schema of the written span."""
        return {"type": ["string"], "pattern": _pattern(SPAN_PATTERN)}


@dataclass(frozen=True, slots=True)
class Word:
    """One of some words, each for a value of the contract."""

    words: Mapping[str, object]

    def read(self, value: object, at: At) -> object | None:
        """Return what the word stands for."""
        if isinstance(value, str) and value in self.words:
            return self.words[value]
        if isinstance(value, str):
            told = json.dumps(value[:40], ensure_ascii=False)
            at.wrong(f"{told} is not one of {', '.join(self.words)}{nearest(value, self.words)}")
        else:
            at.wrong(f"must be one of {', '.join(self.words)}, not {name_of(value)}")
        return None

    def schema(self) -> JsonSchema:
        """Return the schema of the words."""
        return parameter_or({"enum": list(self.words)})


@dataclass(frozen=True, slots=True)
class ListOf:
    """A list of one shape."""

    each: Shape

    def read(self, value: object, at: At) -> list[Any] | None:
        """Return the elements that could be read."""
        if not isinstance(value, list):
            at.wrong(f"must be a list, not {name_of(value)}")
            return None
        found = (self.each.read(element, at.within(index)) for index, element in enumerate(value))
        return [element for element in found if element is not None]

    def schema(self) -> JsonSchema:
        """Return the schema of the list."""
        return _or_parameter("array", items=self.each.schema())


@dataclass(frozen=True, slots=True)
class MapOf:
    """Named values of one shape. key: what a name is."""

    each: Shape
    key: Text = field(default_factory=Text)

    def read(self, value: object, at: At) -> dict[str, Any] | None:
        """Return the members that could be read."""
        if not isinstance(value, Mapping):
            at.wrong(f"must be an object, not {name_of(value)}")
            return None
        found = {}
        for name, member in value.items():
            within = at.within(str(name))
            self.key.read(name, within)
            found[name] = self.each.read(member, within)
        return {name: member for name, member in found.items() if member is not None}

    def schema(self) -> JsonSchema:
        """Return the schema of the object."""
        described = _or_parameter("object", additionalProperties=self.each.schema())
        if self.key.pattern:
            described["propertyNames"] = {"pattern": f"^(?:{self.key.pattern})$"}
        return described


@dataclass(frozen=True, slots=True)
class Json:
    """Any value, as the payload of its JSON."""

    def read(self, value: object, at: At) -> Payload | None:
        """Return the payload."""
        try:
            return Payload(json=to_json(value, source="it"))
        except InvalidArgument as error:
            at.wrong(error.message)
            return None

    def schema(self) -> JsonSchema:
        """Return the schema of anything."""
        return {}


@dataclass(frozen=True, slots=True)
class JsonObject:
    """An object of any members, as JSON text."""

    def read(self, value: object, at: At) -> str | None:
        """Return the text."""
        if not isinstance(value, Mapping):
            at.wrong(f"must be an object, not {name_of(value)}")
            return None
        try:
            return to_json(dict(value), source="it")
        except InvalidArgument as error:
            at.wrong(error.message)
            return None

    def schema(self) -> JsonSchema:
        """Return the schema of the object."""
        return _or_parameter("object")


@dataclass(frozen=True, slots=True)
class Member:
    """One field of an object. into: what the contract calls it; about: what it is, for people."""

    shape: Shape
    about: str
    into: str = ""
    required: bool = False


@dataclass(frozen=True, slots=True)
class Object:
    """An object of known members. make: called with what was read of them, by keyword.

    name: of its definition in the schema. remark: said of a member that is not known.
    """

    make: Callable[..., Any]
    members: Mapping[str, Member]
    name: str
    remark: str = ""
    schema_more: Mapping[str, Any] = field(default_factory=dict)

    def read(self, value: object, at: At) -> Any:
        """Return what `make` makes of the members; of none when it is no object.

        So that the elements of a list keep their numbers.
        """
        if not isinstance(value, Mapping):
            at.wrong(f"must be an object, not {name_of(value)}")
            return self.make()
        found = {}
        for name, member in self.members.items():
            given = value.get(name)
            if given is None:
                if member.required:
                    at.within(name).wrong("is required")
                continue
            if (read := member.shape.read(given, at.within(name))) is not None:
                found[member.into or name] = read
        for name in value:
            if name not in self.members:
                known = f"; known: {', '.join(self.members)}{self.remark}"
                meant = _ELSEWHERE.get(str(name), "")
                told = nearest(meant if meant in self.members else str(name), self.members) or known
                at.within(str(name)).wrong(f"is not a field here{told}", of_key=True)
        return self.make(**found)

    def schema(self) -> JsonSchema:
        """Return a reference to its definition."""
        return _if_written(["string"], self.reference())

    def reference(self) -> JsonSchema:
        """Return the reference alone."""
        return {"$ref": f"#/$defs/{self.name}"}

    def definition(self) -> JsonSchema:
        """Return its definition itself."""
        properties: JsonSchema = {}
        for name, member in self.members.items():
            described = member.shape.schema()
            properties[name] = {
                "description": member.about,
                **(described if member.required else _or_null(described)),
            }
        required = [name for name, member in self.members.items() if member.required]
        return {
            "type": "object",
            "properties": properties,
            **({"required": required} if required else {}),
            "additionalProperties": False,
            **self.schema_more,
        }
