"""Task logs as lines for people: each whole, before it its task and, after the first, the try.

Pure. Written without rich: a hundred thousand lines are to be read in a second. Control characters
but tabs and colours are replaced, so that what a task wrote cannot take the terminal over.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stretto_cli import printing

if TYPE_CHECKING:
    from stretto_sdk.task_log import LogEntry

NAME_CHARACTERS_MAX = 24
LINE_BYTES_MAX = 64 * 1024
"""What is longer is cut into lines of this."""
_COLOURS = (36, 32, 33, 35, 34, 96, 92, 93, 95, 94)


@dataclass(slots=True)
class _Begun:
    """A line whose end has not come yet."""

    prefix: str
    content: bytes


class TaskLogLines:
    """Makes lines of entries; what has no end yet waits for it, or for `rest`."""

    def __init__(self, *, timestamps: bool, coloured: bool) -> None:
        self._timestamps = timestamps
        self._coloured = coloured
        self._begun: dict[tuple[str, int, int, str], _Begun] = {}
        self._width = 0

    def add(self, entry: LogEntry) -> str:
        """Return the lines that the entry ends."""
        key = (entry.task, entry.activation, entry.attempt, entry.stream)
        begun = self._begun.pop(key, None) or _Begun(self._prefix(entry), b"")
        parts = (begun.content + entry.content).split(b"\n")
        prefix = self._prefix(entry)
        lines: list[str] = []
        for part in parts[:-1]:
            lines.extend(_cut(begun.prefix, part))
            begun.prefix = prefix
        last = parts[-1]
        while len(last) > LINE_BYTES_MAX:
            lines.append(begun.prefix + _shown(last[:LINE_BYTES_MAX]))
            last = last[LINE_BYTES_MAX:]
        if last:
            self._begun[key] = _Begun(begun.prefix, last)
        return "".join(f"{line}\n" for line in lines)

    def rest(self) -> str:
        """Return what never got its end."""
        lines = [begun.prefix + _shown(begun.content) for begun in self._begun.values()]
        self._begun.clear()
        return "".join(f"{line}\n" for line in lines)

    def _prefix(self, entry: LogEntry) -> str:
        prefix = f"{printing.instant(entry.time)} " if self._timestamps else ""
        name = tried_name(entry)
        if len(name) > NAME_CHARACTERS_MAX:
            name = f"…{name[1 - NAME_CHARACTERS_MAX :]}"
        self._width = max(self._width, len(name))
        padded = f"{name:<{self._width}}"
        if self._coloured:
            colour = _COLOURS[zlib.crc32(entry.task.encode()) % len(_COLOURS)]
            return f"{prefix}\x1b[{colour}m{padded}\x1b[0m │ "
        return f"{prefix}{padded} | "


def tried_name(entry: LogEntry) -> str:
    """Return the task with its try: `build`, `build#2`, and `build#2.1` once it was opened anew."""
    if entry.activation > 1:
        return f"{entry.task}#{entry.activation}.{entry.attempt}"
    return entry.task if entry.attempt == 1 else f"{entry.task}#{entry.attempt}"


def _cut(prefix: str, line: bytes) -> Iterator[str]:
    line = line.removesuffix(b"\r")
    for start in range(0, max(1, len(line)), LINE_BYTES_MAX):
        yield prefix + _shown(line[start : start + LINE_BYTES_MAX])


def _shown(line: bytes) -> str:
    return printing.coloured(line.decode("utf-8", "replace"))
