"""Where the worker finds secrets: a directory with a file for each, a JSON file, its environment.

The only place that reads them. A file must be closed to other accounts, or lie in a directory that
is, and belong to this one or to root. It is read at each use, so a secret that is replaced counts
from the next task on. Nothing here is kept, logged or put into a message but a secret's name.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping
from pathlib import Path

from stretto_core.telemetry.secret import Secret
from stretto_sdk.arguments.secret_references import SecretUnavailable

FILE_BYTES_MAX = 64 * 1024
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


class SecretStore:
    """path: a directory or a JSON file {"NAME": "text"}, None for neither; it stands before `own`.

    own: secrets by name, from the environment.
    """

    def __init__(self, path: Path | None, own: Mapping[str, Secret]) -> None:
        self._path = path
        self._own = own

    def find(self, name: str) -> Secret:
        """Return a secret. Raises SecretUnavailable, which names its name only."""
        try:
            secret = self._in_path(name) or self._own.get(name)
        except (OSError, ValueError, RecursionError) as error:
            why = error.strerror if isinstance(error, OSError) else str(error)
            raise SecretUnavailable(
                "SECRET_UNUSABLE", f"the secret {name!r} cannot be read: {why}"
            ) from None
        if secret is None:
            raise SecretUnavailable("SECRET_MISSING", f"this worker has no secret named {name!r}")
        return secret

    def _in_path(self, name: str) -> Secret | None:
        if self._path is None:
            return None
        if not self._path.is_dir():
            named = json.loads(_read(self._path))
            text = named.get(name) if isinstance(named, dict) else None
            return Secret(text) if isinstance(text, str) else None
        try:
            content = _read(self._path / name)
        except FileNotFoundError:
            return None
        return Secret(content.decode().removesuffix("\n").removesuffix("\r"))


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise ValueError("it is no file")
        if found.st_uid not in (0, os.geteuid()):
            raise ValueError("its file belongs to another account")
        if found.st_mode & _OTHERS and path.parent.stat().st_mode & _OTHERS:
            raise ValueError("its file is open to other accounts (chmod 600)")
        content = file.read(FILE_BYTES_MAX + 1)
    if len(content) > FILE_BYTES_MAX:
        raise ValueError(f"its file has more than {FILE_BYTES_MAX} bytes")
    return content
