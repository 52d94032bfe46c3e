"""JSON as it may cross the system: UTF-8, no NaN or Infinity, no duplicate keys, bounded.

Owns reading and writing of JSON text at the edge, nothing of its meaning. Sizes are in bytes.
Python's own parser accepts more than RFC 8259 allows; that is refused here.
"""

from __future__ import annotations

import json
import math
from typing import NoReturn

from stretto_core.errors import InvalidArgument

TYPE_NAMES = {
    dict: "an object",
    list: "a list",
    str: "a string",
    bool: "true or false",
    int: "a number",
    float: "a number",
    type(None): "null",
}
"""How each Python type of parsed JSON is called in a message."""

TEXT_BYTES_MAX = 4 << 20
"""A larger text would not fit into one message to the kernel."""


def parse_json(text: bytes | str, *, source: str, bytes_max: int = TEXT_BYTES_MAX) -> object:
    """Return the value of a JSON text.

    source: what the text is, as a person calls it ("plan.json"); it opens every message.
    Raises InvalidArgument: too large, not UTF-8, not JSON, NaN or Infinity, a duplicate key,
    a number or a nesting beyond what can be represented.
    """
    raw = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    if len(raw) > bytes_max:
        raise InvalidArgument(
            f"{source} is {len(raw)} bytes long; at most {bytes_max} are read",
            bytes_max=str(bytes_max),
        )
    try:
        decoded = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidArgument(
            f"{source} is not UTF-8: byte {error.start} is no character"
        ) from None
    try:
        value: object = json.loads(
            decoded,
            object_pairs_hook=_unique_members,
            parse_constant=_refuse_constant,
            parse_float=_finite,
        )
        _refuse_lone_surrogates(decoded, value)
    except json.JSONDecodeError as error:
        raise InvalidArgument(
            f"{source} is not JSON: {error.msg} at line {error.lineno}, column {error.colno}"
        ) from None
    except RecursionError:
        raise InvalidArgument(f"{source} is nested too deeply") from None
    except ValueError as error:
        raise InvalidArgument(f"{source} is not JSON: {error}") from None
    return value


def to_json(value: object, *, source: str) -> str:
    """Return the compact JSON text of a value made of dict, list, str, int, float, bool and None.

    Raises InvalidArgument when it cannot be JSON: NaN, another type, a circular reference, a lone
    surrogate.
    """
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        text.encode()
    except UnicodeEncodeError:
        raise InvalidArgument(
            f"{source} holds a lone surrogate, which UTF-8 cannot carry"
        ) from None
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidArgument(f"{source} cannot be written as JSON: {error}") from None
    return text


def _unique_members(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) < len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise ValueError(f"the key {json.dumps(key)} stands twice in one object")
            seen.add(key)
    return members


def _refuse_constant(word: str) -> NoReturn:
    raise ValueError(f"{word} is no JSON number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {text[:40]} is too large")
    return value


def _refuse_lone_surrogates(text: str, value: object) -> None:
    # Only an escape can bring one in: the text itself was valid UTF-8.
    if "\\u" not in text:
        return
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise ValueError("an escape names half of a surrogate pair") from None
