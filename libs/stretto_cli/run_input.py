"""What a run is given on the command line: its input, its labels."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from stretto_core.errors import InvalidArgument
from stretto_sdk.strict_json import parse_json, to_json

INPUT_BYTES_MAX = 64 << 20
_FILE_NAME_CHARACTERS_MAX = 255
_HINT_CHARACTERS_MAX = 80


def read_bytes(file: str, bytes_max: int) -> bytes:
    """Return a file's bytes, "-" = standard input; one more than bytes_max tells that it is longer.

    Raises InvalidArgument naming the file.
    """
    if file == "-":
        return sys.stdin.buffer.read(bytes_max + 1)
    try:
        with Path(file).open("rb") as opened:
            return opened.read(bytes_max + 1)
    except OSError as error:
        raise InvalidArgument(f"{file}: {error.strerror}") from None


def input_given(text: str, said: str = "--input") -> object:
    """Return the value of --input (or of what is `said`): JSON text, @FILE, - for standard input.

    Raises InvalidArgument.
    """
    if text == "-":
        return _parsed("-", "standard input")
    if text.startswith("@"):
        return _parsed(text[1:], text[1:])
    try:
        return parse_json(text, source=said)
    except InvalidArgument as refusal:
        if len(text) <= _FILE_NAME_CHARACTERS_MAX and Path(text).is_file():
            hint = f"to read the file: {said} @{text}"
        elif text[:1].isalpha() and len(text) <= _HINT_CHARACTERS_MAX and text.isprintable():
            hint = f"a text bears quotes of its own: {shlex.quote(to_json(text, source=said))}"
        else:
            raise
        raise InvalidArgument(f"{refusal.message}; {hint}") from None


def _parsed(file: str, source: str) -> object:
    content = read_bytes(file, INPUT_BYTES_MAX)
    return parse_json(content, source=source, bytes_max=INPUT_BYTES_MAX)


def labels_given(labels: Sequence[str]) -> dict[str, str]:
    """Return labels given as KEY=VALUE. Raises InvalidArgument."""
    found = {}
    for label in labels:
        key, equals, value = label.partition("=")
        if not equals or not key:
            raise InvalidArgument(f"--label {label}: is KEY=VALUE")
        found[key] = value
    return found
