"""Finds the files that a command leaves behind, by paths and patterns below its directory.

Blocking. A pattern never leads out of the directory, by a symbolic link neither: what a task may
publish is what lies below its own place.
"""

from __future__ import annotations

from itertools import islice
from pathlib import Path

from stretto_core.errors import InvalidArgument
from stretto_sdk.arguments.process import Command
from stretto_sdk.worker.artifacts import ARTIFACTS_MAX, check_artifact_name

_PATTERN_CHARACTERS = frozenset("*?[")


class ArtifactMissing(Exception):
    """Nothing is there for a path or pattern that the task names."""


def find_artifacts(command: Command) -> dict[str, Path]:
    """Return the files by their names, which are their paths below the directory, in order.

    Raises ArtifactMissing, InvalidArgument (too many, or a name that cannot be).
    """
    root = Path(command.cwd or ".").resolve()
    found: dict[str, Path] = {}
    for pattern in command.artifacts:
        files = _files(root, pattern)
        if not files:
            raise ArtifactMissing(f"no file is there for {pattern!r}")
        for path in files:
            name = path.relative_to(root).as_posix()
            check_artifact_name(name, found)
            found[name] = path
    return found


def _files(root: Path, pattern: str) -> list[Path]:
    if _PATTERN_CHARACTERS.isdisjoint(pattern):
        return [path for path in (root / pattern,) if _is_own(root, path)]
    own = (path for path in root.glob(pattern) if _is_own(root, path))
    try:
        # One more than may be: however many there are, it is refused.
        return sorted(islice(own, ARTIFACTS_MAX + 1))
    except ValueError as error:
        raise InvalidArgument(f"{pattern!r} is no pattern: {error}") from None


def _is_own(root: Path, path: Path) -> bool:
    return path.is_file() and path.resolve().is_relative_to(root)
