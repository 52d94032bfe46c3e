"""What an attempt leaves behind, as its worker names it: the rules of names, and types by name."""

from __future__ import annotations

import mimetypes
from collections.abc import Container, Sized
from typing import Protocol

from stretto.common.v1.payload_pb2 import Artifact, BlobRef
from stretto_core.errors import InvalidArgument

ARTIFACTS_MAX = 100
NAME_CHARACTERS_MAX = 200


class _Names(Container[str], Sized, Protocol):
    """The names that are there."""


def check_artifact_name(name: str, known: _Names) -> None:
    """Raise InvalidArgument for a name the kernel would refuse, or one beyond the most."""
    parts = name.split("/")
    if (
        not 0 < len(name) <= NAME_CHARACTERS_MAX
        or not name.isprintable()
        or "\\" in name
        or {"", ".", ".."}.intersection(parts)
    ):
        raise InvalidArgument(
            f"{name!r} is no name of an artifact: a relative path of 1-{NAME_CHARACTERS_MAX} "
            "printable characters, without '.' and '..' parts and backslashes"
        )
    if name not in known and len(known) >= ARTIFACTS_MAX:
        raise InvalidArgument(f"an attempt leaves at most {ARTIFACTS_MAX} artifacts behind")


def artifact_of(name: str, blob: BlobRef, content_type: str | None = None) -> Artifact:
    """Return the artifact; its type is guessed from the name if it is not given."""
    guessed = content_type or mimetypes.guess_type(name)[0] or "application/octet-stream"
    return Artifact(name=name, blob=blob, content_type=guessed)
