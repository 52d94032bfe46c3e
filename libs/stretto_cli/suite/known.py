"""The suites of this user on this machine, so that a command finds one started elsewhere.

A directory of symbolic links, one per data directory that a suite was started in. A link is a hint
and never the truth: whether a suite runs there is said by the lock in its directory.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from stretto_cli.suite.directory import SuiteDirectory


def note_suite(directory: SuiteDirectory, environ: Mapping[str, str]) -> None:
    """Leave a hint to a suite that starts, and drop those to suites that do not run any more.

    What cannot be written costs the hint and nothing else.
    """
    hints = _hints(environ)
    digest = hashlib.sha256(os.fsencode(directory.root)).hexdigest()[:16]
    with contextlib.suppress(OSError):
        hints.mkdir(mode=0o700, parents=True, exist_ok=True)
        for link, root in _links(hints):
            if SuiteDirectory(root).running() is None:
                link.unlink(missing_ok=True)
        with contextlib.suppress(FileExistsError):
            (hints / digest).symlink_to(directory.root)


def other_running_suites(default: Path, environ: Mapping[str, str]) -> list[Path]:
    """Return the data directories of running suites; [] when one runs in the default directory."""
    if SuiteDirectory(default).running() is not None:
        return []
    with contextlib.suppress(OSError):
        found = sorted({root for _, root in _links(_hints(environ))})
        return [root for root in found if SuiteDirectory(root).running() is not None]
    return []


def _hints(environ: Mapping[str, str]) -> Path:
    state_home = environ.get("XDG_STATE_HOME")
    return (Path(state_home) if state_home else Path.home() / ".local/state") / "stretto-suites"


def _links(hints: Path) -> Iterator[tuple[Path, Path]]:
    for link in hints.iterdir():
        if link.is_symlink():
            yield link, link.readlink()
