"""Reads a workflow document: a JSON file, also gzipped, bounded in what it may unfold to."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

from stretto_core.errors import InvalidArgument

from stretto_sdk.strict_json import parse_json

DOCUMENT_BYTES_MAX = 128 << 20
"""Of the JSON text, unpacked; a trace of 20,000 tasks has some 40 MB."""
_GZIP_MAGIC = b"\x1f\x8b"


def read_document(path: Path) -> object:
    """Return the parsed JSON of a file, gzipped or not.

    Raises OSError when it cannot be read, InvalidArgument when it is broken, too large or no JSON.
    """
    with path.open("rb") as file:
        packed = file.read(len(_GZIP_MAGIC)) == _GZIP_MAGIC
        file.seek(0)
        text = _unpacked(file, path) if packed else file.read(DOCUMENT_BYTES_MAX + 1)
    if len(text) > DOCUMENT_BYTES_MAX:
        raise InvalidArgument(
            f"{path} holds more than {DOCUMENT_BYTES_MAX >> 20} MiB of JSON; no more is read",
            bytes_max=str(DOCUMENT_BYTES_MAX),
        )
    return parse_json(text, source=str(path), bytes_max=DOCUMENT_BYTES_MAX)


def _unpacked(file: object, path: Path) -> bytes:
    try:
        with gzip.open(file, "rb") as unpacked:  # type: ignore[call-overload]
            text: bytes = unpacked.read(DOCUMENT_BYTES_MAX + 1)
            return text
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InvalidArgument(f"{path} is not a whole gzip file: {error}") from None
