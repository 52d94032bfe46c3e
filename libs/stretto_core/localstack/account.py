"""The operating system account a child runs as, and which paths it can reach.

PostgreSQL refuses to run as root, so root lends it the account `nobody`.
"""

from __future__ import annotations

import os
import pwd
import stat
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Account:
    """A user of this machine; `gid` is its primary group, other groups are dropped."""

    name: str
    uid: int
    gid: int


def unprivileged_account() -> Account | None:
    """Return the account for children that refuse root, or None when we are not root ourselves."""
    if os.geteuid() != 0:
        return None
    entry = pwd.getpwnam("nobody")
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)


def first_unreachable(path: Path, account: Account) -> Path | None:
    """Return the first existing part of `path`, from the root down, that `account` may not enter.

    A file counts when it may not be read and executed. None means all of it can be reached.
    """
    resolved = path.resolve()
    for part in [*reversed(resolved.parents), resolved]:
        if not part.exists():
            return None
        if not _may(part, account, read=part.is_file()):
            return part
    return None


def make_enterable(path: Path) -> None:
    """Make the directories of `path` that are missing such that any account may enter them."""
    missing = [part for part in (path, *path.parents) if not part.exists()]
    for part in reversed(missing):
        part.mkdir(exist_ok=True)
        part.chmod(0o711)  # Whatever the umask says.


def _may(part: Path, account: Account, *, read: bool) -> bool:
    found = part.stat()
    if found.st_uid == account.uid:
        shift = 6
    elif found.st_gid == account.gid:
        shift = 3
    else:
        shift = 0
    needed = stat.S_IXOTH | (stat.S_IROTH if read else 0)
    return ((found.st_mode >> shift) & needed) == needed
