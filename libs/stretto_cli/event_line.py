"""What a person is told of an event in one line; programs read the whole of it from --json.

Left out is what only machines compare: digests and sessions.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

_COMPARED_ONLY = re.compile(r"sessionId|.*[dD]igest")
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_PLAIN = re.compile(r"[^\s\"'=]+")


def facts_text(body: Mapping[str, object]) -> str:
    """Return the facts of an event's body as `name=value`, in its order."""
    return " ".join(
        f"{_HUMP.sub('_', name).lower()}={_value_text(name, value)}"
        for name, value in body.items()
        if not _COMPARED_ONLY.fullmatch(name)
    )


def _value_text(name: str, value: object) -> str:
    match value:
        case {"json": str() as text, **rest} if not rest:
            return text
        case {"shredded": dict(), **rest} if not rest:
            return "(shredded)"
        case {"reason": str() as reason, "message": str() as message}:
            return f"{reason}: {' '.join(message.split())}"
        case str() if _PLAIN.fullmatch(value):
            # A word of a contract bears its kind: of cause=LOSS_CAUSE_EXPIRED that is said already.
            return value.rpartition(f"{name.upper()}_")[2]
    return json.dumps(value, ensure_ascii=False, separators=(", ", ": "))
