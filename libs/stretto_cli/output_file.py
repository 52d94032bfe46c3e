"""The option -o: where a command writes its text instead of standard output."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, BinaryIO

import typer
from stretto_core.atomic_file import write_atomically
from stretto_core.errors import InvalidArgument

Output = Annotated[
    Path | None,
    typer.Option(
        "-o",
        "--output",
        metavar="FILE",
        help="The file to write; it is replaced. Default: standard output.",
        show_default=False,
    ),
]


def write_file(path: Path, text: str) -> None:
    """Write a file in one step: it is there with all of the text, or as it was before."""
    try:
        write_atomically(path, text.encode(), mode=0o644, durable=False)
    except OSError as error:
        raise InvalidArgument(f"{path}: {error.strerror}") from None


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Give a file that takes the path's place once all is in it, and is gone if not.

    Raises InvalidArgument naming the path: no file can be made there.
    """
    try:
        descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    except OSError as error:
        raise InvalidArgument(f"{path}: {error.strerror}") from None
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), 0o644)
            yield file
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
