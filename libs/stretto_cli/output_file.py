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
    """Write a file in one step: it is there with all of the text, or as it was before.

    What is no file, a device or a pipe, is written to and stays what it is.
    """
    try:
        if _is_device(path):
            path.write_text(text)
        else:
            write_atomically(path.resolve(), text.encode(), mode=0o644, durable=False)
    except OSError as error:
        raise InvalidArgument(f"{path}: {error.strerror}") from None


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Give a file that takes the path's place once all is in it, and is gone if not.

    What is no file, a device or a pipe, is given itself. Raises InvalidArgument naming the path: no
    file can be made there.
    """
    place = path.resolve()
    try:
        if _is_device(path):
            with path.open("wb") as device:
                yield device
            return
        descriptor, temporary = tempfile.mkstemp(prefix=f".{place.name}.", dir=place.parent)
    except OSError as error:
        raise InvalidArgument(f"{path}: {error.strerror}") from None
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), 0o644)
            yield file
        Path(temporary).replace(place)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _is_device(path: Path) -> bool:
    """Whether something is there that must not be replaced: /dev/null, for one."""
    return path.exists() and not path.is_file() and not path.is_dir()
