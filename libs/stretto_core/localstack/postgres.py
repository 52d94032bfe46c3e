"""A real PostgreSQL as a child process: made, started, seen ready, stopped fast or at once.

Durable as in production: fsync stays on. It listens on a unix socket only, in a directory that no
other user may enter, so it needs neither a port nor a password. Root lends it the account `nobody`.
`child_spec` composes it into a Supervisor; `start` and `stop` run it alone. Nothing here speaks
SQL: readiness is read from the server's own lock file, where it says so itself.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import signal
import stat
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from stretto_core.localstack.account import (
    Account,
    first_unreachable,
    make_enterable,
    unprivileged_account,
)
from stretto_core.localstack.child import READY_POLL_S, Child, ChildFailed, ChildSpec, StopStep
from stretto_core.localstack.postgres_install import PostgresInstall, reachable_install

SUPERUSER = "postgres"
SOCKET_PATH_BYTES_MAX = 107  # sockaddr_un of Linux; PostgreSQL refuses a longer one.
_PORT = 5432  # Only names the socket file: there is no TCP port.

FAST = StopStep(signal.SIGINT, 10_000)
"""Disconnect everyone, write a checkpoint, end: the next start replays nothing."""
IMMEDIATE = StopStep(signal.SIGQUIT, 5_000)
"""End at once, as in a crash: the next start replays the write-ahead log."""

_KILL = StopStep(signal.SIGKILL, 0)
_STATUS_LINE = 7  # Of postmaster.pid, from 0: "starting", "ready", "standby" or "stopping".
_ENV = {"LC_ALL": "C", "PATH": os.defpath}
_INITDB_OPTIONS = (
    "--locale=C",
    "--encoding=UTF8",
    f"--username={SUPERUSER}",
    "--auth-local=trust",  # Whoever may enter the socket's directory may connect.
    "--auth-host=reject",
    "--no-instructions",
)

DEFAULT_SETTINGS: Mapping[str, str] = {
    "listen_addresses": "",
    "fsync": "on",
    "max_connections": "100",
    "shared_buffers": "128MB",
    "jit": "off",  # Our statements are short; compiling them costs more than running them.
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m [%p] ",
}


@dataclass(slots=True, kw_only=True)
class EmbeddedPostgres:
    """One PostgreSQL cluster below `directory`, which is made when missing.

    settings: server settings over DEFAULT_SETTINGS; they apply from the next start.
    account: the account it runs as; by default `nobody` when we are root, ourselves otherwise.
    """

    directory: Path
    settings: Mapping[str, str] = field(default_factory=dict)
    account: Account | None = field(default_factory=unprivileged_account)
    _child: Child | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        """Make the path absolute: the server changes its working directory."""
        self.directory = self.directory.absolute()

    @property
    def data_directory(self) -> Path:
        """The cluster itself; exists once it is wholly made."""
        return self.directory / "data"

    @property
    def socket_directory(self) -> Path:
        """Where the socket is: below `directory`, or, when that is too long, a temporary one."""
        below = self.directory / "socket"
        if len(os.fsencode(below / f".s.PGSQL.{_PORT}.lock")) < SOCKET_PATH_BYTES_MAX:
            return below
        digest = hashlib.sha256(os.fsencode(self.directory)).hexdigest()[:12]
        return Path(tempfile.gettempdir()) / f"stretto-{digest}"

    @property
    def log_path(self) -> Path:
        """Where the server writes its log."""
        return self.directory / "postgres.log"

    @property
    def pid(self) -> int | None:
        """The server's process id while it runs alone, by `start`."""
        return self._child.pid if self._child else None

    def dsn(self, database: str = "postgres") -> str:
        """Return the connection URI of a database of this cluster, the same across restarts."""
        host = quote(str(self.socket_directory), safe="")
        return f"postgresql://{SUPERUSER}@/{quote(database)}?host={host}&port={_PORT}"

    def child_spec(self) -> ChildSpec:
        """Return the server as a child for a Supervisor; its first start makes the cluster.

        Raises PostgresMissing, and OSError when the programs had to be copied and could not be.
        """
        install = self._install()
        settings = {
            **DEFAULT_SETTINGS,
            "port": str(_PORT),
            "unix_socket_directories": str(self.socket_directory),
            **self.settings,
        }
        options = [f"--{name.replace('_', '-')}={value}" for name, value in settings.items()]
        return ChildSpec(
            name="postgres",
            argv=(str(install.postgres), "-D", str(self.data_directory), *options),
            env=_ENV,
            log_path=self.log_path,
            prepare=self._prepare,
            ready=self._is_ready,
            ready_timeout_ms=60_000,
            stop_steps=(FAST, IMMEDIATE),
            orphan_signal=FAST.signal,
            account=self.account,
            cwd=self.directory,
        )

    async def start(self) -> None:
        """Start the server by itself and return once it accepts connections. Raises ChildFailed."""
        child = Child(self.child_spec())
        self._child = child
        await child.start()
        try:
            await child.wait_ready()
        except BaseException:
            await child.stop_by((IMMEDIATE, _KILL))
            raise

    async def stop(self, step: StopStep = FAST) -> None:
        """Stop what `start` started: FAST, or IMMEDIATE as in a crash. Repeating is harmless."""
        if self._child is not None:
            await self._child.stop_by((step, IMMEDIATE, _KILL))
        if self.socket_directory.parent != self.directory:
            shutil.rmtree(self.socket_directory, ignore_errors=True)

    async def wait_ended(self) -> int:
        """Return the exit status once the server started by `start` ended, for whatever reason."""
        assert self._child is not None, "only a started server ends"
        return await self._child.wait_ended()

    def _install(self) -> PostgresInstall:
        make_enterable(self.directory)
        if self.account is not None:
            shut = first_unreachable(self.directory, self.account)
            if shut is not None:
                raise ChildFailed(
                    f"PostgreSQL runs as {self.account.name}, who may not enter {shut}: "
                    "choose a data directory below one that others may enter (mode o+x)"
                )
        return reachable_install(self.directory, self.account)

    async def _prepare(self) -> None:
        """Make the directories and the cluster; what a crash leaves half-made is replaced."""
        await self._predecessor_ended()
        self._own_directory(self.socket_directory)
        if self.data_directory.exists():
            return
        partial = self.directory / "data.partial"
        shutil.rmtree(partial, ignore_errors=True)
        self._own_directory(partial)
        maker = Child(
            ChildSpec(
                name="initdb",
                argv=(str(self._install().initdb), "-D", str(partial), *_INITDB_OPTIONS),
                env=_ENV,
                log_path=self.log_path,
                account=self.account,
                cwd=self.directory,
            )
        )
        await maker.start()
        try:
            status = await maker.wait_ended()
        finally:
            await maker.stop()
        if status != 0:
            raise ChildFailed(f"initdb ended with status {status}:\n{maker.log_tail()}")
        partial.rename(self.data_directory)

    async def _predecessor_ended(self) -> None:
        """Let a server whose supervisor was killed shut down: it still has the cluster."""
        loop = asyncio.get_running_loop()
        give_up_s = loop.time() + FAST.grace_ms / 1_000
        # No child of ours: its end has to be looked for.
        while self._has_predecessor() and loop.time() < give_up_s:  # noqa: ASYNC110
            await asyncio.sleep(READY_POLL_S)

    def _has_predecessor(self) -> bool:
        try:
            pid = int((self.data_directory / "postmaster.pid").read_text().split("\n", 1)[0])
            # A server works in its cluster: a pid that was reused does not.
            return Path(f"/proc/{pid}/cwd").readlink() == self.data_directory.resolve()
        except (OSError, ValueError):
            return False

    def _own_directory(self, path: Path) -> None:
        """Make `path` a directory that only the server's account may enter."""
        path.mkdir(mode=0o700, exist_ok=True)
        uid = self.account.uid if self.account else os.geteuid()
        found = path.lstat()
        # Below the temporary directory anyone may have made it before us.
        if not stat.S_ISDIR(found.st_mode) or found.st_uid not in (uid, os.geteuid()):
            raise ChildFailed(f"{path} belongs to someone else: remove it")
        if self.account is not None:
            os.chown(path, self.account.uid, self.account.gid)
        path.chmod(0o700)

    async def _is_ready(self, pid: int) -> bool:
        lines = (self.data_directory / "postmaster.pid").read_text().splitlines()
        return (
            len(lines) > _STATUS_LINE
            and int(lines[0]) == pid
            and lines[_STATUS_LINE].startswith("ready")
        )
