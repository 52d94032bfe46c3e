"""Output schemas: which JSON Schemas a plan may name, and what of a value violates one.

The only importer of jsonschema-rs, which is loaded at the first schema, not at the start. `decide`
asks and records what it was told; `evolve` never validates, so a later version of the library
changes no recorded run.

Checking must end soon whatever a plan or a result says. Patterns are matched by an engine whose
time is linear in the text (no look-around, no back-references). References stay inside the schema
and never lead back to where they came from, so that written out in full it has at most
SUBSCHEMAS_MAX subschemas, each judging a part of the value at most once; a value with too many
parts for its schema is a violation. Formats are not asserted.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING

from stretto.common.v1.payload_pb2 import Payload

from stretto_kernel.domain.run.findings import Findings, parse_json

if TYPE_CHECKING:
    import jsonschema_rs

SCHEMA_BYTES_MAX = 16 * 1024
SUBSCHEMAS_MAX = 1_000
DEPTH_MAX = 64
PATTERN_BYTES_MAX = 1 << 20
"""Of a compiled pattern."""
VALIDATORS_MAX = 256
JUDGEMENTS_MAX = 500_000
"""Parts of a value times subschemas: what judging it may cost, some 0.3 us each."""
LISTED_JUDGEMENTS_MAX = 20_000
"""Beyond it the first violation is told alone: the library lists all of them or one."""
VIOLATIONS_SHOWN_MAX = 5
VIOLATION_CHARS_MAX = 300
REASON = "OUTPUT_SCHEMA_VIOLATED"

_DIALECTS = (
    "https://json-schema.org/draft/2020-12/schema",
    "https://json-schema.org/draft/2019-09/schema",
    "http://json-schema.org/draft-07/schema",
)
_ONE = (
    *("additionalItems", "additionalProperties", "contains", "else", "if", "items", "not"),
    *("propertyNames", "then", "unevaluatedItems", "unevaluatedProperties"),
)
_SOME = ("allOf", "anyOf", "items", "oneOf", "prefixItems")
_NAMED = ("dependencies", "dependentSchemas", "patternProperties", "properties")
_REFUSED = ("$anchor", "$dynamicAnchor", "$dynamicRef", "$recursiveRef")


class _Refused(ValueError):
    """The schema is none that may be used; says why."""


def check_schema(findings: Findings, path: str, text: str) -> None:
    """Note what keeps `text` from being an output schema; an empty one is none at all."""
    if not text:
        return
    if len(text.encode()) > SCHEMA_BYTES_MAX:
        findings.wrong(path, f"is larger than {SCHEMA_BYTES_MAX} bytes")
        return
    try:
        schema = parse_json(text)
        _check_dialect(schema)
        _Expansion(schema).count(schema, (), 0)
        _validator(text)
    except RecursionError:
        findings.wrong(path, "is nested too deeply")
    except ValueError as error:
        findings.wrong(path, f"is no JSON Schema to be used here: {_first_line(error)}")


def violations(schema_text: str, value: Payload) -> str:
    """Return what of the value violates the schema, "" when nothing does.

    The first few violations, each with the JSON Pointer of the part that violates. Only JSON that
    is given inline can be judged: anything else is a violation.
    """
    if value.WhichOneof("value") != "json":
        return "it is not JSON given inline, so its schema cannot be checked"
    judge, instance = _validator(schema_text), parse_json(value.json)
    parts, subschemas = _part_count(instance), _subschema_count(schema_text)
    if parts * subschemas > JUDGEMENTS_MAX:
        return f"it has {parts} parts, too many to be judged by {subschemas} subschemas"
    if judge.is_valid(instance):
        return ""
    if parts * subschemas > LISTED_JUDGEMENTS_MAX:
        return _shown(_first_error(judge, instance))
    return "; ".join(map(_shown, islice(judge.iter_errors(instance), VIOLATIONS_SHOWN_MAX)))


def _first_error(judge: jsonschema_rs.Validator, instance: object) -> jsonschema_rs.ValidationError:
    import jsonschema_rs  # noqa: PLC0415 - loaded by now.

    try:
        judge.validate(instance)
    except jsonschema_rs.ValidationError as error:
        return error
    raise AssertionError("it was not valid a moment ago")


def _shown(error: jsonschema_rs.ValidationError) -> str:
    return f"at {_pointer(error.instance_path)}: {error.message[:VIOLATION_CHARS_MAX]}"


def _part_count(value: object) -> int:
    """How many values a value consists of, itself and its keys among them."""
    count, waiting = 0, [value]
    while waiting:
        each = waiting.pop()
        count += 1
        if isinstance(each, dict):
            count += len(each)
            waiting += each.values()
        elif isinstance(each, list):
            waiting += each
    return count


@lru_cache(maxsize=VALIDATORS_MAX)
def _subschema_count(text: str) -> int:
    schema = parse_json(text)
    expansion = _Expansion(schema)
    expansion.count(schema, (), 0)
    return expansion.subschema_count


@lru_cache(maxsize=VALIDATORS_MAX)
def _validator(text: str) -> jsonschema_rs.Validator:
    import jsonschema_rs  # noqa: PLC0415 - no start waits for it.

    return jsonschema_rs.validator_for(
        text,
        pattern_options=jsonschema_rs.RegexOptions(
            size_limit=PATTERN_BYTES_MAX, dfa_size_limit=PATTERN_BYTES_MAX
        ),
        validate_formats=False,
        offline=True,
    )


def _check_dialect(schema: object) -> None:
    if not isinstance(schema, dict):
        return
    dialect = schema.get("$schema")
    if dialect is not None and str(dialect).rstrip("#") not in _DIALECTS:
        raise _Refused(f"$schema must be one of {', '.join(_DIALECTS)}")


class _Expansion:
    """Counts the subschemas of a schema with its references written out."""

    def __init__(self, root: object) -> None:
        self._root = root
        self.subschema_count = 0

    def count(self, schema: object, within: tuple[str, ...], depth: int) -> None:
        """Count below `schema`, reached through the references `within`. Raises ValueError."""
        self.subschema_count += 1 + _compared_count(schema)
        if self.subschema_count > SUBSCHEMAS_MAX:
            raise _Refused(
                f"with its references written out, more than {SUBSCHEMAS_MAX} subschemas"
            )
        if depth > DEPTH_MAX:
            raise _Refused(f"nested more than {DEPTH_MAX} deep")
        if not isinstance(schema, dict):
            return
        if refused := next((word for word in _REFUSED if word in schema), None):
            raise _Refused(f"{refused} is not taken")
        if "$id" in schema and schema is not self._root:
            raise _Refused("$id is taken at the top only")
        for inner in _inner(schema):
            self.count(inner, within, depth + 1)
        if (reference := schema.get("$ref")) is not None:
            if reference in within:
                raise _Refused(f"$ref {reference!r} leads back to itself")
            self.count(self._target(reference), (*within, reference), depth + 1)

    def _target(self, reference: object) -> object:
        if not isinstance(reference, str) or not (reference == "#" or reference[:2] == "#/"):
            raise _Refused(f"$ref {reference!r} is not '#' and a JSON Pointer into this schema")
        if reference == "#":
            raise _Refused("$ref '#' leads back to itself")
        target = self._root
        for token in reference[2:].split("/"):
            key = token.replace("~1", "/").replace("~0", "~")
            if isinstance(target, list) and key.isdecimal() and int(key) < len(target):
                target = target[int(key)]
            elif isinstance(target, dict) and key in target:
                target = target[key]
            else:
                raise _Refused(f"$ref {reference!r} leads nowhere")
        return target


def _compared_count(schema: object) -> int:
    """How many values an `enum` compares one by one: each costs what a subschema does."""
    named = schema.get("enum") if isinstance(schema, dict) else None
    if not isinstance(named, list):
        return 0
    return sum(isinstance(each, dict | list) for each in named)


def _inner(schema: dict[str, object]) -> list[object]:
    inner = [schema[word] for word in _ONE if isinstance(schema.get(word), dict | bool)]
    for word in _SOME:
        listed = schema.get(word)
        if isinstance(listed, list):
            inner += listed
    for word in _NAMED:
        named = schema.get(word)
        if isinstance(named, dict):
            inner += named.values()
    return inner


def _pointer(path: list[str | int]) -> str:
    if not path:
        return "the top"
    return "".join(f"/{str(part).replace('~', '~0').replace('/', '~1')}" for part in path)


def _first_line(error: ValueError) -> str:
    return str(error).partition("\n")[0][:VIOLATION_CHARS_MAX]
