"""What the command writes: tables for people, JSON for programs, complaints on stderr.

Standard output carries only what was asked for, so that `--json` can be piped; progress and
complaints go to standard error. What others wrote (names, reasons, outputs) comes out of a pipe as
it is, and never takes a terminal over.
"""

from __future__ import annotations

import dataclasses
import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import TYPE_CHECKING

from rich import markup
from rich.console import Console
from rich.text import Text

if TYPE_CHECKING:
    from stretto_sdk.runs import Failure


class _Output(Console):
    def on_broken_pipe(self) -> None:
        # Rich would exit with 1, which says that a run failed; `exits` knows what it means.
        raise BrokenPipeError


class _Complaints(Console):
    def on_broken_pipe(self) -> None:
        self.quiet = True  # Nobody reads them any more; the exit status still says what was.


out = _Output(soft_wrap=True, highlight=False, emoji=False)
err = _Complaints(stderr=True, soft_wrap=True, highlight=False, emoji=False)

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_CONTROL_BUT_COLOURS = re.compile(r"[\x00-\x08\x0b-\x1a\x1c-\x1f\x7f-\x9f]|\x1b(?!\[[0-9;]*m)")

_COLOURS = {
    "SUCCEEDED": "green",
    "FAILED": "red",
    "CANCELLED": "yellow",
    "KILLED": "yellow",
    "CANCELLING": "yellow",
    "PAUSED": "yellow",
    "RUNNING": "cyan",
    "READY": "green",
    "ready": "green",
    "backing_off": "red",
    "starting": "yellow",
}


_LAST_WIDTH_MIN = 12
"""A last column narrower than that says nothing: the line wraps instead."""


def harmless(text: str) -> str:
    """Return what others wrote without what steers a terminal: replaced, one by one."""
    return _CONTROL.sub("\ufffd", text)


def coloured(text: str) -> str:
    """Return what others wrote without what steers a terminal but for its colours."""
    return _CONTROL_BUT_COLOURS.sub("\ufffd", text)


def escape(text: str) -> str:
    """Return what others wrote as markup that shows it, and is harmless."""
    return markup.escape(harmless(text))


def complain(message: str) -> None:
    """Write one complaint to standard error."""
    err.print(f"[bold red]stretto:[/] {escape(message)}")


def note(message: str) -> None:
    """Write one remark to standard error."""
    err.print(escape(message))


def note_more(next_page_token: str) -> None:
    """Say on standard error how to go on after a page; nothing after the last one."""
    if next_page_token:
        note(f"there are more: --all, or --page-token {next_page_token}")


def print_json(value: object) -> None:
    """Write a value as indented JSON."""
    print_line(_json_of(value, indent=2))


def print_json_line(value: object) -> None:
    """Write a value as JSON on one line."""
    print_line(_json_of(value))


def print_line(text: str) -> None:
    """Write a line as it is, into a pipe to the last character."""
    # Not through `out`, which expands tabs and replaces `:names:` of pictures.
    sys.stdout.write(f"{coloured(text) if out.is_terminal else text}\n")
    sys.stdout.flush()


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Write a table without borders, a line a row; cells may hold markup.

    No cell is cut, for an id is there to be copied and a pipe has no width; but the last one, of
    several, gives way on a terminal: it says why, and its end is in the --json.
    """
    head = [Text(column, style="bold dim") for column in columns]
    lines = [
        head,
        *([Text.from_markup(_one_line(cell), emoji=False) for cell in row] for row in rows),
    ]
    widths = [max(cell.cell_len for cell in column) for column in zip(*lines, strict=True)]
    left = out.width - sum(widths[:-1]) - 2 * len(widths[:-1])
    if out.is_terminal and len(widths) > 1 and left >= _LAST_WIDTH_MIN:
        for line in lines:
            line[-1].truncate(left, overflow="ellipsis")
        widths[-1] = min(widths[-1], left)
    for line in lines:
        for cell, width in zip(line, widths, strict=True):
            cell.pad_right(width - cell.cell_len)
        written = Text("  ").join(line)
        written.rstrip()
        out.print(written)


def print_pairs(pairs: Iterable[tuple[str, str]]) -> None:
    """Write names and values below each other without the empty ones; values may hold markup."""
    shown = [(name, value) for name, value in pairs if value]
    width = max(len(name) for name, _ in shown)
    for name, value in shown:
        indented = value.replace("\n", "\n" + " " * (width + 2))
        out.print(f"[dim]{name:<{width}}[/]  {indented}")


def _json_of(value: object, indent: int | None = None) -> str:
    # Where the terminal or the pipe is not UTF-8, JSON has its own way to say every character.
    unicode = out.encoding.replace("-", "").lower().startswith("utf8")
    return json.dumps(plain(value), indent=indent, ensure_ascii=not unicode)


def _one_line(cell: str) -> str:
    return " ".join(cell.split())


def state(word: str) -> str:
    """Return a state word with its colour as markup."""
    colour = _COLOURS.get(word)
    return f"[{colour}]{word}[/]" if colour else word


def instant(time: datetime | None) -> str:
    """Return an instant as text in UTC, "" for none."""
    return "" if time is None else time.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3] + "Z"


def span(start: datetime | None, end: datetime | None) -> str:
    """Return the time from start to end, "" unless both are known."""
    if start is None or end is None:
        return ""
    return f"{(end - start).total_seconds():.3f} s"


def span_text(start: datetime | None, end: datetime | None) -> str:
    """Return the time from start to end in one or two units, "" unless both are known."""
    if start is None or end is None:
        return ""
    return length_text(end - start)


def length_text(length: timedelta) -> str:
    """Return a length of time in one or two units."""
    # What runs is measured with this machine's clock, which may be behind the kernel's.
    span_s = max(0.0, length.total_seconds())
    if span_s < 60:
        return f"{span_s:.1f}s"
    minutes, seconds = divmod(int(span_s), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days}d{hours:02}h"
    return f"{hours}h{minutes:02}m" if hours else f"{minutes}m{seconds:02}s"


def age(time: datetime | None) -> str:
    """Return how long ago an instant was, in one unit, as "5m ago"; "" for none."""
    if time is None:
        return ""
    passed_s = max(0.0, (datetime.now(tz=UTC) - time).total_seconds())
    for unit, unit_s in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if passed_s >= unit_s:
            return f"{passed_s // unit_s:.0f}{unit} ago"
    return f"{passed_s:.0f}s ago"


def failure_text(failure: Failure | None) -> str:
    """Return a failure as one sentence, "" for none."""
    if failure is None:
        return ""
    where = f" in {failure.task}" if failure.task else ""
    return f"{failure.reason}{where}: {failure.message}"


def holds_text(holds: Mapping[str, str]) -> str:
    """Return holds with their reasons."""
    return ", ".join(f"{hold}: {why}" if why else hold for hold, why in holds.items())


def plain(value: object) -> object:
    """Return a value of ours as what JSON can carry."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        shown = [each.name for each in dataclasses.fields(value) if not each.name.startswith("_")]
        return {name: plain(getattr(value, name)) for name in shown}
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, dict):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    if isinstance(value, Enum) and not isinstance(value, str):
        return {value.name.lower(): True}  # Stands for a value: {"shredded": true}.
    return value
