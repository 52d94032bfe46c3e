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
from stretto_sdk.plan_files.text import DEPTH_MAX
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

_REFERENCE = re.compile(r"(\$?)(\$\{params\.([^}]*)\})")
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
            known = f"; known: {', '.join(declared)}" if declared else "; the file declares none"
            wrong(name, f"no parameter is named {name!r}{nearest(name, declared) or known}")
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
    value: object, values: Mapping[str, object], wrong: Callable[[str, str], None]
) -> Any:
    """Return a value with its parameters put in. wrong: told (path, why) of each mistake.

    What stands below no parameter is the same object as before. Also what bounds the depth of a
    plan, since it goes through all of it.
    """

    def put(value: object, path: str, depth: int) -> object:
        match value:
            case str() if "${params." in value:
                return _text_with(value, values, lambda why: wrong(path, why))
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


def _text_with(text: str, values: Mapping[str, object], wrong: Callable[[str], None]) -> object:
    whole = _WHOLE.fullmatch(text)
    if whole:
        name = text[len("${params.") : -1]
        if name not in values:
            wrong(_unknown(name, values))
        return values.get(name)

    def written(found: re.Match[str]) -> str:
        if found[1]:
            return found[2]
        name = found[3]
        if name not in values:
            wrong(_unknown(name, values))
            return ""
        value = values[name]
        if value is None or isinstance(value, Mapping | list):
            wrong(f"the parameter {name!r} is {name_of(value)}, which cannot stand inside a text")
            return ""
        return value if isinstance(value, str) else to_json(value, source="it")

    return _REFERENCE.sub(written, text)


def _unknown(name: str, values: Mapping[str, object]) -> str:
    known = f"; known: {', '.join(values)}" if values else "; the file declares none"
    return f"no parameter is named {name!r}{nearest(name, values) or known}"
