"""Where the values of a text stand: the tree of their lines and columns, found by field path.

A field path is what a mistake carries: `tasks[3].inputs["x y"].from`, or as the kernel writes it,
`tasks[3].inputs['x y']`. Lines and columns count from 1, columns in characters.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

_STEP = re.compile(
    r"""\.?(?P<name>[^.\[\]]+)|\[(?P<index>[0-9]+)\]"""
    r"""|\[(?P<json>"(?:[^"\\]|\\.)*")\]|\['(?P<quoted>(?:[^'\\]|\\.)*)'\]"""
)


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """A character of a text."""

    line: int
    column: int


@dataclass(slots=True)
class Spot:
    """Where a value stands, where the key before it stands, and the spots of what it holds."""

    place: Place
    key: Place | None = None
    members: dict[str, Spot] | list[Spot] | None = None

    def step(self, step: str | int) -> Spot | None:
        """Return the spot of a member or an element, None when there is none."""
        within = self.members
        if isinstance(within, dict):
            return within.get(step) if isinstance(step, str) else None
        if isinstance(within, list) and isinstance(step, int) and step < len(within):
            return within[step]
        return None

    def find(self, path: str, *, of_key: bool = False) -> Place:
        """Return where the field of a path stands; what is not there stands where it would be in.

        of_key: the key's place, for a field whose name is the mistake.
        """
        spot = self
        for step in steps_of(path):
            following = spot.step(step)
            if following is None:
                return spot.place
            spot = following
        return spot.key if of_key and spot.key else spot.place


def steps_of(path: str) -> Iterator[str | int]:
    """Yield the keys and indices that a field path leads through; ends where it is none."""
    position = 0
    while found := _STEP.match(path, position):
        position = found.end()
        if found["index"] is not None:
            yield int(found["index"])
        elif found["json"] is not None:
            yield str(json.loads(found["json"]))
        else:
            yield found["name"] if found["name"] is not None else found["quoted"]


def step_text(step: str | int) -> str:
    """Return a key or an index as a field path writes it after another step."""
    if isinstance(step, int):
        return f"[{step}]"
    return f".{step}" if step.isidentifier() else f"[{json.dumps(step, ensure_ascii=False)}]"
