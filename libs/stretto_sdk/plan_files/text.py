"""The text of a plan: read as JSON or as YAML into one value, with the places of all that is in it.

A mistake of the text that leaves the rest readable (a key that stands twice, NaN, a tag) is noted,
and reading goes on; one after which nothing can be told ends it. Sizes are in bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from stretto_sdk.plan_files.places import Place, Spot

PLAN_BYTES_MAX = 64 << 20
"""Of a plan's text; one larger than a message goes to the kernel in slices."""
DEPTH_MAX = 100
"""Of objects and lists inside each other."""


@dataclass(frozen=True, slots=True)
class TextMistake:
    """What is wrong with the text at a place, whatever it was to mean."""

    place: Place
    description: str


@dataclass(frozen=True, slots=True)
class PlanText:
    """What a text says. spot: computed when first needed, which is when something is wrong.

    refers: whether a parameter may stand in it; False spares a walk through all of it.
    """

    value: object
    spot: Callable[[], Spot]
    mistakes: tuple[TextMistake, ...] = ()
    refers: bool = True


def may_refer(text: str) -> bool:
    """Whether a parameter may stand in a text, plainly or behind an escape."""
    return "${params." in text or "\\u" in text or "\\x" in text


class Unreadable(Exception):
    """The text says nothing that could be read on. mistakes: what was found up to there."""

    def __init__(self, *mistakes: TextMistake) -> None:
        super().__init__(*(each.description for each in mistakes))
        self.mistakes = mistakes


def decoded(raw: bytes) -> str:
    """Return bytes as text without a byte order mark. Raises Unreadable."""
    if len(raw) > PLAN_BYTES_MAX:
        raise Unreadable(TextMistake(Place(1, 1), too_large(len(raw))))
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = raw[: error.start].decode("utf-8", "replace")
        place = Place(before.count("\n") + 1, len(before) - before.rfind("\n"))
        byte = raw[error.start]
        hint = "; it looks like UTF-16" if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else ""
        raise Unreadable(
            TextMistake(
                place,
                f"is not UTF-8: no character has the byte {byte:#04x}{hint}: save it as UTF-8",
            ),
        ) from None


def too_large(size_bytes: int) -> str:
    """Describe a text beyond PLAN_BYTES_MAX."""
    return (
        f"has {size_bytes} bytes; a plan file has at most {PLAN_BYTES_MAX} ({PLAN_BYTES_MAX >> 20} "
        "MiB): start a growing plan and add the rest with add_tasks, or let tasks spawn it"
    )
