"""Which boxes of a drawing lie below which."""

from __future__ import annotations

from stretto_sdk.drawings.drawing import Box, Drawing


def nested(drawing: Drawing) -> dict[str, list[Box]]:
    """Return the boxes by their spawner, those of the plan under ""; each box is there once."""
    names = {box.name for box in drawing.boxes}
    below: dict[str, list[Box]] = {}
    for box in drawing.boxes:
        below.setdefault(box.spawner if box.spawner in names else "", []).append(box)
    return below
