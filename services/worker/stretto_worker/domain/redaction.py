"""Keeps secrets out of what comes back: results, failures, logs. Pure.

A secret is found as it stands, percent-encoded, escaped as in JSON, and as base64 of the whole.
What transforms it in another way, or cuts it up, is not found: who may use a secret can tell it.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable
from urllib.parse import quote, quote_plus

from stretto_core.telemetry.secret import Secret

MARK = "[secret]"


class Redaction:
    """Replaces every form of the secrets by MARK."""

    def __init__(self, secrets: Iterable[Secret]) -> None:
        forms = {form for secret in secrets for form in _forms(secret.reveal())}
        # The longest first: one form may begin with another.
        self._forms = sorted(forms, key=len, reverse=True)
        self._text = re.compile("|".join(map(re.escape, self._forms)))
        self._bytes = re.compile(b"|".join(re.escape(form.encode()) for form in self._forms))
        self._bytes_max = max((len(form.encode()) for form in self._forms), default=0)

    def text(self, text: str) -> str:
        """Return the text without secrets."""
        return self._text.sub(MARK, text) if self._forms else text

    def value(self, value: object) -> object:
        """Return a JSON value without secrets, in its keys neither."""
        match value:
            case str():
                return self.text(value)
            case dict():
                return {self.text(key): self.value(each) for key, each in value.items()}
            case list():
                return [self.value(each) for each in value]
        return value

    def stream(self) -> RedactedStream:
        """Return what redacts one stream of bytes."""
        return RedactedStream(self._bytes if self._forms else None, self._bytes_max)


class RedactedStream:
    """One stream of bytes: what might be the beginning of a secret waits for what follows."""

    def __init__(self, secrets: re.Pattern[bytes] | None, bytes_max: int) -> None:
        self._secrets = secrets
        self._kept_max = max(0, bytes_max - 1)
        self._kept = b""

    def feed(self, chunk: bytes) -> bytes:
        """Return what is known to hold no secret, in order."""
        if self._secrets is None:
            return chunk
        content = self._kept + chunk
        cut = max(0, len(content) - self._kept_max)
        known, position = bytearray(), 0
        for found in self._secrets.finditer(content):
            # One that begins further on may be the beginning of a longer one.
            if found.start() >= cut:
                break
            known += content[position : found.start()] + MARK.encode()
            position = found.end()
        known += content[position:cut]
        self._kept = content[max(cut, position) :]
        return bytes(known)

    def end(self) -> bytes:
        """Return the rest."""
        rest, self._kept = self._kept, b""
        return rest if self._secrets is None else self._secrets.sub(MARK.encode(), rest)


def _forms(text: str) -> set[str]:
    return {
        text,
        quote(text),
        quote(text, safe=""),
        quote_plus(text),
        json.dumps(text)[1:-1],
        json.dumps(text, ensure_ascii=False)[1:-1],
        base64.b64encode(text.encode()).decode(),
    }
