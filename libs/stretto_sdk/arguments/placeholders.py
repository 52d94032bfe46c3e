"""Placeholders in a task's arguments: `${inputs.NAME}` stands for an input of the task. Pure.

In a text an input that is a string stands as it is, anything else as JSON. `$${` stands for `${`.
What an input brings is never looked at for placeholders or references again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping

from stretto_sdk.fields import Mistakes
from stretto_sdk.strict_json import to_json

_PLACEHOLDER = re.compile(r"\$\$\{|\$\{([^}]*)\}")
_STAND_IN = "1"  # A port, a part of a path, a header, a word: it fits wherever an input may.
_NAME = re.compile(r"inputs\.(.+)", re.DOTALL)


class Placeholders:
    """Fills texts from the inputs of one task, and notes what is no input of it."""

    names_only = False
    """Whether the inputs have names and no values yet."""

    def __init__(self, inputs: Mapping[str, object], mistakes: Mistakes) -> None:
        self.inputs = inputs
        self._mistakes = mistakes

    @classmethod
    def of_names(cls, names: Iterable[str], mistakes: Mistakes) -> Placeholders:
        """Return what fills before there are values: it notes names that are no inputs."""
        fill = cls(dict.fromkeys(names, _STAND_IN), mistakes)
        fill.names_only = True
        return fill

    def fill(self, text: str, path: str, quote: Callable[[str], str] = str) -> str:
        """Return the text with its placeholders filled, each through `quote`."""

        def filled(match: re.Match[str]) -> str:
            if match.group(1) is None:
                return "${"
            return quote(_text(self._input(match, path)))

        return _PLACEHOLDER.sub(filled, text)

    def value(self, text: str, path: str) -> object:
        """Return the input itself when the text is nothing but its placeholder, else the text."""
        match = _PLACEHOLDER.fullmatch(text)
        if match is None or match.group(1) is None:
            return self.fill(text, path)
        return plain(self._input(match, path))

    def _input(self, match: re.Match[str], path: str) -> object:
        named = _NAME.fullmatch(match.group(1))
        if named is None or named.group(1) not in self.inputs:
            known = ", ".join(f"${{inputs.{name}}}" for name in self.inputs) or "none"
            self._mistakes.add(path, f"{match.group(0)} is no input of this task; it has: {known}")
            return match.group(0)  # It stands for something: nothing else is wrong because of it.
        return self.inputs[named.group(1)]


def plain(value: object) -> object:
    """Bytes have no JSON: they read as text, or are refused where they are written."""
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else value


def _text(value: object) -> str:
    value = plain(value)
    return value if isinstance(value, str) else to_json(value, source="it")
