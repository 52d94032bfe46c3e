"""The option --type: which facts are meant, and what to say when there are none of them."""

from __future__ import annotations

from collections.abc import Sequence

from stretto_sdk.runs import Event

from stretto_cli import printing


class EventTypes:
    """The types asked for, in any case, by full name or last part; none = all.

    Remembers the others that it met, so that a mistyped name can be answered with what there is.
    """

    def __init__(self, asked: Sequence[str] | None) -> None:
        self._wanted = {each.lower() for each in asked or ()}
        self._others: set[str] = set()
        self._takes_any = False

    def takes(self, event: Event) -> bool:
        """Whether the fact is of a type asked for."""
        word = event.type.rpartition(".")[2]
        if self._wanted and self._wanted.isdisjoint((word.lower(), event.type.lower())):
            self._others.add(word)
            return False
        self._takes_any = True
        return True

    @property
    def met_none(self) -> bool:
        """Whether there was no fact at all, of whatever type."""
        return not self._others and not self._takes_any

    def note_none(self) -> None:
        """Say which types there are, if none was of those asked for."""
        if self._others and not self._takes_any:
            printing.note(f"none of that type; there are {', '.join(sorted(self._others))}")
