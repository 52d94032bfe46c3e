"""Drawings as Graphviz DOT."""

from __future__ import annotations

from collections.abc import Iterator

from stretto_sdk.drawings.drawing import Arrow, Box, Drawing
from stretto_sdk.drawings.nesting import nested

_FILLS = {
    "SUCCEEDED": "#d3f5dc",
    "FAILED": "#ffd8d3",
    "RUNNING": "#d6ebff",
    "VERIFYING": "#d6ebff",
    "WAITING": "#fff3c4",
    "READY": "#fff3c4",
    "CANCELLED": "#e6e8eb",
    "SKIPPED": "#f2f3f5",
    "UNKNOWN": "#ffffff",
    "PENDING": "#ffffff",
}


def dot(drawing: Drawing) -> str:
    """Return the digraph: bold arrows wait for a subtree, dotted ones lead to what is spawned."""
    return "\n".join(_lines(drawing)) + "\n"


def _lines(drawing: Drawing) -> Iterator[str]:
    yield "digraph stretto {"
    yield "  rankdir=TB;"
    yield '  node [shape=box, style="rounded,filled", fillcolor="#ffffff", fontname="sans-serif"];'
    label = "\n".join(each for each in (drawing.title, *drawing.notes) if each)
    if label:
        yield f"  label={_quoted(label)};"
    ids = {box.name: f"t{number}" for number, box in enumerate(drawing.boxes)}
    yield from _boxes(nested(drawing), "", ids, "  ")
    for (above, below), kind in drawing.arrows.items():
        if above in ids and below in ids:
            bold = ' [style=bold, label="subtree"]' if kind is Arrow.SUBTREE else ""
            yield f"  {ids[above]} -> {ids[below]}{bold};"
    yield "}"


def _boxes(
    below: dict[str, list[Box]], spawner: str, ids: dict[str, str], indent: str
) -> Iterator[str]:
    for box in below.get(spawner, ()):
        label = "\n".join(each for each in (box.name, box.detail) if each)
        looks = [f"label={_quoted(label)}"]
        if box.state in _FILLS:
            looks += [f'fillcolor="{_FILLS[box.state]}"', f"tooltip={_quoted(box.state)}"]
        if box.many:
            looks.append("peripheries=2")
        elif box.clean_up:
            looks.append("shape=ellipse")
        yield f"{indent}{ids[box.name]} [{', '.join(looks)}];"
        if box.name in below:
            yield f"{indent}subgraph cluster_{ids[box.name]} {{"
            yield f"{indent}  label={_quoted(f'spawned by {box.name}')};"
            yield f"{indent}  style=dashed;"
            yield from _boxes(below, box.name, ids, f"{indent}  ")
            yield f"{indent}}}"
            for child in below[box.name]:
                yield f"{indent}{ids[box.name]} -> {ids[child.name]} [style=dotted];"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{"".join(sign for sign in escaped if sign.isprintable())}"'
