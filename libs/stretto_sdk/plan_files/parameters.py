"""Parameters of plan files: declared with a type, given at the start, put in where they stand.

`${params.name}` alone is the parameter's value with its type; inside a longer text it is written
out. `$${params.name}` stands for itself. There is nothing more: no expressions, no conditions, no
loops. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from stretto_core.errors import InvalidArgument

from stretto_sdk.fields import Mistakes, name_of, nearest
from stretto_sdk.plan_files.places import step_text
from stretto_sdk.plan_files.text import DEPTH_MAX, PLAN_BYTES_MAX
from stretto_sdk.shapes import (
    PARAMETER,
    At,
    Flag,
    JsonSchema,
    MapOf,
    Member,
    Object,
    Text,
    Word,
)
from stretto_sdk.strict_json import parse_json, to_json

# A name ends at a `$`, too: else a text of many beginnings without an end takes quadratic time.
_REFERENCE = re.compile(r"(\$?)(\$\{params\.([^}$]*)(\}?))")
_WHOLE = re.compile(PARAMETER)
NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")

_STAND_INS: dict[str, object] = {
    "string": "x",
    "integer": 1,
    "number": 1,
    "boolean": False,
    "list": [],
    "object": {},
}
"""What stands for a parameter whose value is wrong, so that one mistake does not make others."""
_TOO_MUCH = f"parameters unfold to more than {PLAN_BYTES_MAX >> 20} MiB"
_COMPARISONS_MAX = 100_000
_SHOWN_NAMES_MAX = 20
TYPES: dict[str, Callable[[object], bool]] = {
    "string": lambda value: isinstance(value, str),
    "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "boolean": lambda value: isinstance(value, bool),
    "list": lambda value: isinstance(value, list),
    "object": lambda value: isinstance(value, Mapping),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """A declared parameter. required: one without a default, unless it says otherwise."""

    type: str = "string"
    default: object = None
    description: str = ""
    required: bool | None = None


@dataclass(slots=True)
class Unfolding:
    """What all parameters of one plan may still come to: bytes put in, and names compared.

    A short text that names a long value many times would else take all memory.
    """

    bytes_left: int = PLAN_BYTES_MAX
    comparisons_left: int = _COMPARISONS_MAX

    def takes(self, bytes_count: int) -> bool:
        """Count what a parameter puts in; False once it is too much."""
        self.bytes_left -= bytes_count
        return self.bytes_left >= 0

    def unknown(self, name: str, values: Mapping[str, object]) -> str:
        """Describe a name that no parameter has, with the nearest one unless that takes long."""
        self.comparisons_left -= len(values)
        near = nearest(name, values) if self.comparisons_left >= 0 else ""
        return f"no parameter is named {name[:80]!r}{near or _known(values)}"


class _Anything:
    """Any value as it is."""

    def read(self, value: object, at: At) -> object:
        """Return it."""
        return value

    def schema(self) -> JsonSchema:
        """Return the schema of anything."""
        return {}


ANYTHING = _Anything()
PARAMETER_SHAPE = Object(
    Parameter,
    {
        "type": Member(Word({name: name for name in TYPES}), "Of its value; default string."),
        "default": Member(ANYTHING, "Its value when none is given."),
        "description": Member(Text(), "For people."),
        "required": Member(Flag(), "Must it be given; by default when it has no default."),
    },
    "declared_parameter",
)
PARAMETERS = MapOf(
    PARAMETER_SHAPE,
    Text(NAME.pattern, "is not the name of a parameter: a-z, 0-9 and _, 64 at most"),
)


def read_parameters(value: object, mistakes: Mistakes) -> dict[str, Parameter]:
    """Return what the member `parameters` of a file declares, as far as it can be read."""
    at = At(mistakes).within("parameters")
    read: dict[str, Parameter] = {} if value is None else PARAMETERS.read(value, at) or {}
    declared = {name: each for name, each in read.items() if NAME.fullmatch(name)}
    for name, parameter in declared.items():
        if parameter.default is None:
            continue
        if parameter.required:
            at.within(name).within("required").wrong(
                "what must be given has no use for a default: take one of the two away"
            )
        if not TYPES[parameter.type](parameter.default):
            at.within(name).within("default").wrong(
                f"is {name_of(parameter.default)}, and the type is {parameter.type}"
            )
    return declared


def values_of(
    declared: Mapping[str, Parameter],
    given: Mapping[str, object],
    wrong: Callable[[str, str], None],
) -> dict[str, object]:
    """Return the value of each declared parameter. wrong: told (name, why) of each mistake.

    A text given for a parameter of another type is read as JSON: what a command line can give.
    """
    values: dict[str, object] = {}
    for name in given:
        if name not in declared:
            near = nearest(name, declared) or _known(declared)
            wrong(name, f"no parameter is named {name!r}{near}")
    for name, parameter in declared.items():
        if name in given:
            values[name] = _typed(name, parameter, given[name], wrong)
            continue
        if parameter.default is None and parameter.required is not False:
            about = f" ({parameter.description})" if parameter.description else ""
            wrong(name, f"the parameter {name!r} must be given{about}")
            values[name] = _STAND_INS[parameter.type]
            continue
        values[name] = parameter.default
    return values


def _typed(
    name: str, parameter: Parameter, value: object, wrong: Callable[[str, str], None]
) -> object:
    if isinstance(value, str) and parameter.type != "string":
        try:
            value = parse_json(value, source="the value")
        except InvalidArgument:
            wrong(name, f"the parameter {name!r} is of type {parameter.type}; this is text")
            return _STAND_INS[parameter.type]
    if parameter.type == "integer" and isinstance(value, float) and value.is_integer():
        value = int(value)
    if not TYPES[parameter.type](value):
        wrong(name, f"the parameter {name!r} is of type {parameter.type}, not {name_of(value)}")
        return _STAND_INS[parameter.type]
    return value


def with_parameters(
    value: object,
    values: Mapping[str, object],
    wrong: Callable[[str, str], None],
    unfolding: Unfolding,
) -> Any:
    """Return a value with its parameters put in. wrong: told (path, why) of each mistake.

    What stands below no parameter is the same object as before. Also what bounds the depth of a
    plan, since it goes through all of it.
    """

    def put(value: object, path: str, depth: int) -> object:
        match value:
            case str() if "${params." in value:
                return _text_with(value, values, lambda why: wrong(path, why), unfolding)
            case dict() | list() if depth == DEPTH_MAX:
                wrong(path, f"is nested more than {DEPTH_MAX} deep")
                return None
            case dict():
                return {
                    key: put(each, f"{path}{step_text(str(key))}", depth + 1)
                    if isinstance(each, str | dict | list)
                    else each
                    for key, each in value.items()
                }
            case list():
                return [put(each, f"{path}[{n}]", depth + 1) for n, each in enumerate(value)]
        return value

    return put(value, "", 0)


def _text_with(
    text: str, values: Mapping[str, object], wrong: Callable[[str], None], unfolding: Unfolding
) -> object:
    if unfolding.bytes_left < 0:
        return None  # It was said; the plan is refused.
    whole = _WHOLE.fullmatch(text)
    if whole:
        name = text[len("${params.") : -1]
        if name not in values:
            wrong(unfolding.unknown(name, values))
        elif not unfolding.takes(len(to_json(values[name], source="it"))):
            wrong(_TOO_MUCH)
            return None
        return values.get(name)

    def written(found: re.Match[str]) -> str:
        _, reference, name, end = found.groups()
        if found[1]:
            return reference
        if not end:
            wrong(f"{reference[:80]} has no end; $${{params. stands for the text itself")
            return ""
        if name not in values:
            wrong(unfolding.unknown(name, values))
            return ""
        value = values[name]
        if value is None or isinstance(value, Mapping | list):
            wrong(f"the parameter {name!r} is {name_of(value)}, which cannot stand inside a text")
            return ""
        told = value if isinstance(value, str) else to_json(value, source="it")
        if not unfolding.takes(len(told)):
            wrong(_TOO_MUCH)
            return ""
        return told

    return _REFERENCE.sub(written, text)


def _known(values: Mapping[str, object]) -> str:
    if not values:
        return "; the file declares none"
    shown = list(values)[:_SHOWN_NAMES_MAX]
    more = f" and {len(values) - len(shown)} more" if len(values) > len(shown) else ""
    return f"; known: {', '.join(shown)}{more}"
