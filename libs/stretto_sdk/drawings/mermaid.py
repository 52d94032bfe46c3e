"""Drawings as Mermaid flowcharts, for Markdown pages and its live editor."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from stretto_sdk.drawings.drawing import Arrow, Box, Drawing
from stretto_sdk.drawings.nesting import nested

_PLAIN = re.compile(r"[A-Za-z0-9 ,./()_-]")
_CLASSES = {
    "SUCCEEDED": "fill:#d3f5dc,stroke:#1a7f37,color:#1f2328",
    "FAILED": "fill:#ffd8d3,stroke:#cf222e,color:#1f2328",
    "RUNNING": "fill:#d6ebff,stroke:#0969da,color:#1f2328",
    "VERIFYING": "fill:#d6ebff,stroke:#0969da,color:#1f2328",
    "WAITING": "fill:#fff3c4,stroke:#9a6700,color:#1f2328",
    "READY": "fill:#fff3c4,stroke:#9a6700,color:#1f2328",
    "CANCELLED": "fill:#e6e8eb,stroke:#6e7781,color:#1f2328",
    "SKIPPED": "fill:#f2f3f5,stroke:#8c959f,color:#6e7781",
    "UNKNOWN": "fill:#ffffff,stroke:#9a6700,color:#1f2328",
    "PENDING": "fill:#ffffff,stroke:#8c959f,color:#1f2328",
}
_ARROWS = {Arrow.TASK: "-->", Arrow.SUBTREE: "==>"}


def mermaid(drawing: Drawing) -> str:
    """Return the flowchart: thick arrows wait for a subtree, dotted ones lead to the spawned."""
    return "\n".join(_lines(drawing)) + "\n"


def _lines(drawing: Drawing) -> Iterator[str]:
    if drawing.title:
        # The front matter is YAML, of which a JSON string in ASCII is one.
        yield from ("---", f"title: {json.dumps(drawing.title)}", "---")
    yield "flowchart TD"
    ids = {box.name: f"t{number}" for number, box in enumerate(drawing.boxes)}
    yield from _boxes(nested(drawing), "", ids, "  ")
    for (above, below), kind in drawing.arrows.items():
        if above in ids and below in ids:
            yield f"  {ids[above]} {_ARROWS[kind]} {ids[below]}"
    for number, note in enumerate(drawing.notes):
        yield f'  note{number}>"{_escaped(note)}"]'
    used = {box.state for box in drawing.boxes}
    for state, style in _CLASSES.items():
        if state in used:
            yield f"  classDef {state.lower()} {style}"


def _boxes(
    below: dict[str, list[Box]], spawner: str, ids: dict[str, str], indent: str
) -> Iterator[str]:
    for box in below.get(spawner, ()):
        opening, closing = (
            ("[[", "]]") if box.many else ("([", "])") if box.clean_up else ("[", "]")
        )
        label = "<br/>".join(_escaped(each) for each in (box.name, box.detail) if each)
        style = f":::{box.state.lower()}" if box.state in _CLASSES else ""
        yield f'{indent}{ids[box.name]}{opening}"{label}"{closing}{style}'
        if box.name in below:
            group = f"{ids[box.name]}below"
            yield f'{indent}subgraph {group}["spawned by {_escaped(box.name)}"]'
            yield from _boxes(below, box.name, ids, f"{indent}  ")
            yield f"{indent}end"
            yield f"{indent}{ids[box.name]} -.-> {group}"


def _escaped(text: str) -> str:
    """Return text in which every sign that Mermaid might take for its own is a number."""
    return "".join(
        sign if _PLAIN.match(sign) or sign.isalnum() else f"#{ord(sign)};"
        for sign in text
        if sign.isprintable()
    )
