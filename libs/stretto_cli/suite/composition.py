"""What a suite on this machine is made of: PostgreSQL, NATS, kernel, projector, workers, in order.

Services are started as processes of this Python and never imported. Each gets exactly the
environment written here; a worker besides inherits the caller's, since tasks are the caller's
programs.
"""

from __future__ import annotations

import signal
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field

from stretto_core.errors import InvalidArgument
from stretto_core.localstack.child import ChildSpec, StopStep
from stretto_core.localstack.nats import EmbeddedNats, port_before
from stretto_core.localstack.postgres import EmbeddedPostgres
from stretto_core.localstack.readiness import tcp_open
from stretto_core.rpc.tokens import TOKENS_FILE

from stretto_cli.suite.directory import SuiteDirectory

HOST = "127.0.0.1"
DEFAULT_PORT = 7788
WORKERS_MAX = 64
_PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "TZ", "VIRTUAL_ENV")
_METRICS = "STRETTO_METRICS_LISTEN"
_KERNEL_SETTINGS = (
    "STRETTO_QUEUE_LIMITS",
    "STRETTO_SEAL_EVENTS_MAX",
    "STRETTO_SEAL_INTERVAL_S",
    _METRICS,
    "STRETTO_TASK_LOG_BYTES_MAX",
)
"""What a suite's user may set of its kernel; the rest is the composition's."""
_PROJECTOR_SETTINGS = ("STRETTO_TASK_LOG_KEEP_DAYS", "STRETTO_TASK_LOG_ENDED_KEEP_DAYS")
_DRAIN_GRACE_MS = 15_000


@dataclass(frozen=True, slots=True, kw_only=True)
class SuiteSettings:
    """How to compose a suite.

    port: where the kernel listens, on loopback. postgres_dsn, nats_url: None brings our own server.
    slot_count: how many work items each worker runs at once; None leaves it to the worker.
    environ: the caller's environment.
    """

    directory: SuiteDirectory
    port: int
    worker_count: int = 2
    slot_count: int | None = None
    postgres_dsn: str | None = field(default=None, repr=False)
    nats_url: str | None = field(default=None, repr=False)
    environ: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def address(self) -> str:
        """Where the kernel is reached."""
        return f"{HOST}:{self.port}"


def child_specs(settings: SuiteSettings) -> tuple[ChildSpec, ...]:
    """Return the processes of the suite in the order they start."""
    specs: list[ChildSpec] = []
    dsn = settings.postgres_dsn
    if dsn is None:
        postgres = EmbeddedPostgres(directory=settings.directory.postgres_path)
        dsn = postgres.dsn()
        specs.append(postgres.child_spec())
    nats_url = settings.nats_url
    if nats_url is None:
        nats_path = settings.directory.nats_path
        # The one it had, if nobody took it since; no fixed one, which several suites would want.
        nats = EmbeddedNats(directory=nats_path, port=free_port(port_before(nats_path)))
        nats_url = nats.url()
        specs.append(nats.child_spec())
    specs.append(_kernel(settings, dsn))
    specs.append(_projector(settings, dsn, nats_url))
    specs.extend(_worker(settings, number) for number in range(1, settings.worker_count + 1))
    return tuple(specs)


def choose_port(asked: int | None) -> int:
    """Return the port to use: the one asked for, else the default one, else any that is free.

    Raises InvalidArgument when the one asked for is taken. 0 asks for any.
    """
    found = free_port(DEFAULT_PORT) if asked is None else _bindable(asked)
    if found is None:
        raise InvalidArgument(f"port {asked} is taken: leave out --port to use a free one")
    return found


def check_metrics_address(environ: Mapping[str, str], port: int) -> None:
    """Refuse an address of /metrics that the kernel, itself listening on `port`, could not take.

    Later, when a kernel is started again, a taken one costs the figures and not the runs; but who
    asks for figures and starts a suite wants to know. Raises InvalidArgument.
    """
    address = environ.get(_METRICS, "")
    host, _, number = address.rpartition(":")
    if not address:
        return
    if not host or not number.isdecimal() or int(number) > 65_535:
        raise InvalidArgument(f"{_METRICS}: {address!r} is not HOST:PORT, like 127.0.0.1:9464")
    try:
        places = socket.getaddrinfo(host.strip("[]"), int(number), type=socket.SOCK_STREAM)
        for family, kind, protocol, _, place in places:
            with socket.socket(family, kind, protocol) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(place)
    except OSError as error:
        raise InvalidArgument(f"{_METRICS}: {address}: {error.strerror}") from None
    if int(number) == port:
        raise InvalidArgument(f"{_METRICS}: {address}: the kernel itself listens on port {port}")


def free_port(liked: int) -> int:
    """Return the port `liked` if it is free now, else any that is."""
    found = _bindable(liked) or _bindable(0)
    assert found is not None, "some port of loopback is free"
    return found


def _bindable(port: int) -> int | None:
    with socket.socket() as probe:
        # As it will be bound: a port whose last connections still linger is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return None
        found: int = probe.getsockname()[1]
        return found


def _kernel(settings: SuiteSettings, dsn: str) -> ChildSpec:
    return ChildSpec(
        name="kernel",
        argv=(sys.executable, "-m", "stretto_kernel"),
        log_path=settings.directory.log_path("kernel"),
        env={
            **_passed_on(settings, *_KERNEL_SETTINGS),
            "STRETTO_POSTGRES_DSN": dsn,
            "STRETTO_LISTEN": settings.address,
            "STRETTO_TOKENS_FILE": str(settings.directory.tokens_path / TOKENS_FILE),
        },
        ready=tcp_open(HOST, settings.port),
        stop_steps=_DRAIN,
    )


def _projector(settings: SuiteSettings, dsn: str, nats_url: str) -> ChildSpec:
    return ChildSpec(
        name="projector",
        argv=(sys.executable, "-m", "stretto_kernel", "--role", "projector"),
        log_path=settings.directory.log_path("projector"),
        env={
            **_passed_on(settings, *_PROJECTOR_SETTINGS),
            "STRETTO_POSTGRES_DSN": dsn,
            "STRETTO_NATS_URL": nats_url,
        },
        stop_steps=_DRAIN,
    )


def _worker(settings: SuiteSettings, number: int) -> ChildSpec:
    name = f"worker-{number}"
    inherited = {
        key: value for key, value in settings.environ.items() if not key.startswith("STRETTO_")
    }
    slots = (
        {} if settings.slot_count is None else {"STRETTO_WORKER_SLOTS": str(settings.slot_count)}
    )
    return ChildSpec(
        name=name,
        argv=(sys.executable, "-m", "stretto_worker"),
        log_path=settings.directory.log_path(name),
        env={
            **inherited,
            **_told_workers(settings.environ),
            **slots,
            "STRETTO_KERNEL_ADDRESS": settings.address,
            "STRETTO_TOKEN_FILE": str(settings.directory.tokens_path / "worker.token"),
            "STRETTO_TOKENS_FILE": str(settings.directory.tokens_path / TOKENS_FILE),
            "STRETTO_DATA_DIR": str(settings.directory.root),
            "STRETTO_WORKER_NAME": name,
            # With the time a body has to stop, within the grace of the stop.
            "STRETTO_DRAIN_S": "8",
        },
        stop_steps=_DRAIN,
    )


def _told_workers(environ: Mapping[str, str]) -> dict[str, str]:
    """Return what the suite's environment says about secrets and hosts, which is for workers."""
    return {
        key: text
        for key, text in environ.items()
        if key == "STRETTO_WORKER_SECRETS" or key.startswith(("STRETTO_SECRET_", "STRETTO_HTTP_"))
    }


_DRAIN = (StopStep(signal.SIGTERM, _DRAIN_GRACE_MS),)


def _passed_on(settings: SuiteSettings, *more: str) -> dict[str, str]:
    environ = settings.environ
    return {key: environ[key] for key in (*_PASSED_ON, *more) if key in environ}
