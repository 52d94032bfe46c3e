"""Secrets by reference: a task's arguments name a secret, the worker alone knows its text. Pure.

`{"secret": "NAME"}` stands for the secret, `{"secret": "NAME", "prefix": "Bearer "}` for it behind
a text. A plan, an event, a log and a message hold the name only. Only the arguments themselves are
looked at: an input that looks like a reference is a value like any other.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from stretto_core.telemetry.secret import Secret

from stretto_sdk.arguments.placeholders import Placeholders
from stretto_sdk.fields import Mistakes, name_of

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")
CHARACTERS_MIN = 8
"""A shorter secret could not be told from any other text, and so not be kept out of results."""

FindSecret = Callable[[str], Secret]
"""Returns the secret of a name. Raises SecretUnavailable."""


class SecretUnavailable(Exception):
    """This worker does not have the secret, or may not use it: not retryable, names the name."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


@dataclass(frozen=True, slots=True)
class SecretReference:
    """Stands for a secret, behind `prefix`."""

    name: str
    prefix: str = ""


class Reveal:
    """Puts secrets in the place of references, and remembers which: they are to be redacted."""

    def __init__(self, find: FindSecret) -> None:
        self._find = find
        self.revealed: list[Secret] = []

    def text(self, value: str | SecretReference) -> str:
        """Return the text that stands at a place. Raises SecretUnavailable."""
        if isinstance(value, str):
            return value
        secret = self._find(value.name)
        text = secret.reveal()
        why = ""
        if len(text) < CHARACTERS_MIN:
            why = f"has less than {CHARACTERS_MIN} characters"
        elif not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
            why = "is not UTF-8"
        if why:
            raise SecretUnavailable("SECRET_UNUSABLE", f"the secret {value.name!r} {why}")
        self.revealed.append(secret)
        return value.prefix + text

    def value(self, value: object) -> object:
        """Return a JSON value without references. Raises SecretUnavailable."""
        match value:
            case SecretReference():
                return self.text(value)
            case dict():
                return {key: self.value(each) for key, each in value.items()}
            case list():
                return [self.value(each) for each in value]
        return value


def reference_of(value: object, path: str, mistakes: Mistakes) -> SecretReference | None:
    """Return the reference that a value is, None for any other value."""
    if not isinstance(value, Mapping) or "secret" not in value:
        return None
    if not set(value) <= {"secret", "prefix"}:
        return None
    name, prefix = value["secret"], value.get("prefix", "")
    if not isinstance(name, str) or not NAME.fullmatch(name):
        mistakes.add(path, "names a secret by 1-64 letters, digits, `_`, `.` or `-`")
        return SecretReference("_")
    if not isinstance(prefix, str):
        mistakes.add(path, "has a prefix that is no text")
        return SecretReference(name)
    return SecretReference(name, prefix)


def text_or_secret(
    value: object, path: str, mistakes: Mistakes, fill: Placeholders
) -> str | SecretReference:
    """Return a filled text, or the reference in its place."""
    reference = reference_of(value, path, mistakes)
    if reference is not None:
        return reference
    if not isinstance(value, str):
        mistakes.add(path, f'must be a string or {{"secret": NAME}}, not {name_of(value)}')
        return ""
    return fill.fill(value, path)
