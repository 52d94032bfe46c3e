"""The data directory of a suite: where each file lies, and who may run in it.

One suite per directory, by a file lock that the kernel drops with its holder, however it dies. The
lock file names its last holder; the lock, not the name, says whether one runs.
"""

from __future__ import annotations

import fcntl
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

from stretto_core.atomic_file import write_atomically
from stretto_core.errors import FailedPrecondition, InvalidArgument
from stretto_core.localstack.account import make_enterable, unprivileged_account
from stretto_core.localstack.status import SuiteStatus, read_status
from stretto_sdk.endpoint import ENDPOINT_FILE, TOKENS_DIRECTORY

from stretto_cli.suite.identity import ProcessIdentity, own_identity


class DirectoryInUse(FailedPrecondition):
    """Another suite runs in this data directory."""

    reason = "DIRECTORY_IN_USE"


@dataclass(frozen=True, slots=True)
class SuiteDirectory:
    """The files of one suite below `root`."""

    root: Path

    @property
    def endpoint_path(self) -> Path:
        """Where clients read the address."""
        return self.root / ENDPOINT_FILE

    @property
    def tokens_path(self) -> Path:
        """The bearer tokens, each file mode 0600."""
        return self.root / TOKENS_DIRECTORY

    @property
    def status_path(self) -> Path:
        """What each process is doing."""
        return self.root / "status.json"

    @property
    def postgres_path(self) -> Path:
        """The embedded PostgreSQL."""
        return self.root / "postgres"

    @property
    def nats_path(self) -> Path:
        """The embedded NATS; nothing in it is the record."""
        return self.root / "nats"

    @property
    def lock_path(self) -> Path:
        """Names and locks out: the process that runs the suite."""
        return self.root / "suite.lock"

    def log_path(self, process: str) -> Path:
        """Where a process of the suite writes its log."""
        return self.root / "logs" / f"{process}.log"

    def make(self) -> None:
        """Make what is missing of the directory. Raises OSError.

        Others may pass through it (when we are root, the account of PostgreSQL must, whatever the
        umask says), while whatever is secret in it has a mode of its own.
        """
        if unprivileged_account() is not None:
            make_enterable(self.root)
        self.root.mkdir(parents=True, exist_ok=True, mode=0o755)

    def own(self) -> BinaryIO:
        """Make and take the directory for this process until the file returned is closed.

        Raises DirectoryInUse, OSError.
        """
        self.make()
        lock = self.lock_path.open("a+b")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            raise DirectoryInUse(
                f"a suite runs in {self.root} already: `stretto status` shows it, "
                "`stretto down` stops it, `--data-dir` starts another elsewhere",
                data_directory=str(self.root),
            ) from None
        lock.truncate(0)
        lock.write(json.dumps(asdict(own_identity())).encode())
        lock.flush()
        return lock

    def running(self) -> ProcessIdentity | None:
        """Return the process that runs the suite, None when none does.

        Raises InvalidArgument when a file stands where the directory should.
        """
        try:
            with self.lock_path.open("rb") as lock:
                try:
                    fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
                except BlockingIOError:
                    named = lock.read()
                else:
                    return None
        except FileNotFoundError:
            return None
        except NotADirectoryError:
            raise self._no_directory() from None
        if not named:
            return None  # It took the lock this instant; its name follows.
        identity = ProcessIdentity(**json.loads(named))
        return identity if identity.alive else None

    def _no_directory(self) -> InvalidArgument:
        file = next(each for each in (self.root, *self.root.parents) if each.is_file())
        return InvalidArgument(
            f"{file} is a file: a suite keeps its data in a directory of its own, "
            "which --data-dir or $STRETTO_DATA_DIR names"
        )

    def status(self) -> SuiteStatus | None:
        """Return what the status file says, None without one; `running` says if it is current."""
        return read_status(self.status_path)

    def address(self) -> str | None:
        """Return the address written for clients, None when there is none."""
        try:
            address: str = json.loads(self.endpoint_path.read_bytes())["address"]
        except FileNotFoundError:
            return None
        return address

    def write_address(self, address: str) -> None:
        """Replace the address that clients read."""
        content = json.dumps({"address": address, "supervisor_pid": os.getpid()}).encode()
        write_atomically(self.endpoint_path, content, mode=0o644)
