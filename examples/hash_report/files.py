"""What the hash report reads: which files of a directory, in which order, and what of each."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

SKIPPED_NAMES = frozenset(
    {
        ".git",
        ".hg",
        ".svn",
        ".venv",
        "venv",
        ".tox",
        "node_modules",
        "__pycache__",
        ".mypy_cache",
        ".ruff_cache",
        ".pytest_cache",
        ".hypothesis",
        ".import_linter_cache",
    }
)
FILE_COUNT_MAX = 20_000
FILE_BYTES_MAX = 64 << 20
CHUNK_PATH_BYTES_MAX = 48 << 10
"""A chunk's paths travel in its task's inputs, which hold 64 KiB at most."""
LIST_PATH_BYTES_MAX = 768 << 10
"""All chunks are spawned with one result, which is recorded as one fact of 1 MiB at most."""
_PATH_EXTRA_BYTES = 16
_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Counted:
    """What is known of some files. digest: over their paths and contents, in order."""

    file_count: int
    byte_count: int
    line_count: int
    unreadable_count: int
    digest: str


def list_files(directory: Path) -> tuple[list[str], bool]:
    """Return the paths of all plain files below a directory, sorted, and whether that is all.

    The same directory always gives the same list: hidden trees of tools, symbolic links, files over
    64 MiB and names that are not UTF-8 are left out; it ends after 20,000 files, or as many as have
    768 KiB of paths, in order of path.
    """
    found: list[str] = []
    list_bytes = 0
    for path in _walk(directory):
        list_bytes += _path_bytes(path)
        if len(found) == FILE_COUNT_MAX or list_bytes > LIST_PATH_BYTES_MAX:
            return found, False
        found.append(path)
    return found, True


def chunked(paths: list[str], chunk_count: int) -> list[list[str]]:
    """Return the paths in order, in about `chunk_count` even pieces; no piece is empty."""
    if not paths:
        return []
    per_chunk = -(-len(paths) // max(1, chunk_count))
    chunks: list[list[str]] = [[]]
    chunk_bytes = 0
    for path in paths:
        path_bytes = _path_bytes(path)
        if chunks[-1] and (
            len(chunks[-1]) == per_chunk or chunk_bytes + path_bytes > CHUNK_PATH_BYTES_MAX
        ):
            chunks.append([])
            chunk_bytes = 0
        chunks[-1].append(path)
        chunk_bytes += path_bytes
    return chunks


def _path_bytes(path: str) -> int:
    """Return what a path takes in a list, as JSON."""
    return len(json.dumps(path)) + _PATH_EXTRA_BYTES


def count_files(directory: Path, paths: Iterable[str]) -> Counted:
    """Read the files and return what they hold; one that cannot be read is counted as such."""
    total = hashlib.sha256()
    file_count = byte_count = line_count = unreadable_count = 0
    for path in paths:
        file_count += 1
        total.update(path.encode() + b"\0")
        try:
            with (directory / path).open("rb") as file:
                content = hashlib.sha256()
                while block := file.read(_BLOCK_BYTES):
                    content.update(block)
                    byte_count += len(block)
                    line_count += block.count(b"\n")
                total.update(content.digest())
        except OSError:
            unreadable_count += 1
            total.update(b"unreadable")
    return Counted(file_count, byte_count, line_count, unreadable_count, total.hexdigest())


def _walk(directory: Path) -> Iterator[str]:
    for parent, directories, names in os.walk(directory):
        directories[:] = sorted(set(directories) - SKIPPED_NAMES)
        for name in sorted(set(names) - SKIPPED_NAMES):
            path = Path(parent, name)
            try:
                status = path.lstat()
                relative = path.relative_to(directory).as_posix()
                relative.encode()
            except (OSError, UnicodeEncodeError):
                continue
            if path.is_file() and not path.is_symlink() and status.st_size <= FILE_BYTES_MAX:
                yield relative
