"""The end of a process's log as a person reads it.

Our services write a JSON object a line; whatever else is there (a database's lines, a stack trace)
is left as it is.
"""

from __future__ import annotations

import json

LINES_MAX = 12
_CHARACTERS_MAX = 200
_FIRST = ("timestamp", "level", "event")


def readable_end(text: str) -> str:
    """Return the last lines of a log, those that are JSON objects as words."""
    return "\n".join(_readable(line) for line in text.splitlines()[-LINES_MAX:])


def _readable(line: str) -> str:
    try:
        entry = json.loads(line) if line.startswith("{") else None
    except ValueError:
        entry = None  # A line cut in the middle.
    if not isinstance(entry, dict):
        return line[:_CHARACTERS_MAX]
    opening = [str(entry[name]) for name in _FIRST if entry.get(name)]
    # Of a stack trace the last line says what happened; the log has the rest.
    rest = [
        f"{name}={str(value).strip().splitlines()[-1] if str(value).strip() else ''}"
        for name, value in entry.items()
        if name not in _FIRST
    ]
    return " ".join([*opening, *rest])[:_CHARACTERS_MAX]
