"""What a person is told of an event in one line; programs read the whole of it from --json.

Left out is what only machines compare: digests and sessions. A pipe gets the whole line; a terminal
as much as is wide, and always what happened: if it is narrow, on a line of its own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from rich.text import Text

from stretto_cli import printing

if TYPE_CHECKING:
    from stretto_sdk.runs import Event

Column = Literal["stream", "version", "principal"]

_FACT_WIDTH_MIN = 32
"""The type of every event fits; with less, it goes on a line of its own."""
_COMPARED_ONLY = re.compile(r"sessionId|.*[dD]igest")
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_PLAIN = re.compile(r"[^\s\"'=]+")


def print_fact(event: Event, columns: Sequence[Column], why: str = "") -> None:
    """Write an event: its time and these columns, then its type, why it is, and its facts."""
    shown: dict[Column, tuple[str, str]] = {
        "stream": (f"{event.stream} ", "dim"),
        "version": (f"{event.version:>5} ", "dim"),
        "principal": (f"{printing.harmless(event.principal):<12} ", ""),
    }
    head = Text.assemble(
        (f"{printing.instant(event.time)} ", "dim"), *(shown[column] for column in columns)
    )
    fact = Text.assemble(
        (event.type.rpartition(".")[2], "bold"),
        (f" {why}" if why else "", "cyan"),
        f" {printing.harmless(facts_text(event.body))}",
    )
    for line in _fitted(head, fact):
        line.rstrip()
        printing.out.print(line)


def _fitted(head: Text, fact: Text) -> tuple[Text, ...]:
    if not printing.out.is_terminal:
        return (head + fact,)
    width = printing.out.width
    if width - head.cell_len < _FACT_WIDTH_MIN:
        lines: tuple[Text, ...] = (head, Text("  ") + fact)
    else:
        lines = (head + fact,)
    for line in lines:
        line.truncate(width, overflow="ellipsis")
    return lines


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
