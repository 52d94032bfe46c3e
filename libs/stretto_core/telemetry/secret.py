"""A value that must not be seen: printing, formatting, logging or pickling one shows nothing."""

from __future__ import annotations

import hmac
from typing import NoReturn


class Secret:
    """Holds a secret text; `reveal` is the only way to it, so that every use can be found."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """Return the secret itself, for the one call that needs it."""
        return self._text

    def __repr__(self) -> str:
        return "Secret(***)"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self._text.encode(), other._text.encode())

    def __hash__(self) -> int:
        return hash(Secret)  # Equal secrets hash alike, and a hash tells nothing of its secret.

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret is not serialised")
