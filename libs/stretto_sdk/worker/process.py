"""A worker process put together: stream, executors, control service, signals.

The SDK's Worker and the worker service both start here; they differ in executors and settings.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version

import structlog
from stretto.worker.v1 import worker_control_service_pb2_grpc as services
from stretto_core.clock import Clock
from stretto_core.ids import IdSource
from stretto_core.rpc.identity import Tokens
from stretto_core.telemetry.secret import Secret

from stretto_sdk.worker.control import WorkerControl
from stretto_sdk.worker.effects import SessionSettings
from stretto_sdk.worker.link import GrpcDialer
from stretto_sdk.worker.ports import Executor
from stretto_sdk.worker.runtime import DrainLimits, Ended, WorkerRuntime
from stretto_sdk.worker.value_carrier import ValueCarrier


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSettings:
    """address: host:port of a kernel. tokens: who may steer this process, None: loopback only."""

    address: str
    worker_id: str
    queues: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    slot_count: int = 16
    token: Secret | None = None
    tokens: Tokens | None = None
    drain_limits: DrainLimits = field(default_factory=DrainLimits)
    handles_signals: bool = True


async def run_worker(
    settings: WorkerSettings, executors: Mapping[str, Executor], *, clock: Clock, ids: IdSource
) -> Ended:
    """Work until drained (SIGTERM, SIGINT or DrainWorker) or replaced; return which.

    Raises Refusal when the kernel will never take this worker as it is.
    """
    session_id = ids.uuid7()
    log = structlog.get_logger("stretto.worker")
    control = WorkerControl(settings.worker_id, session_id, clock.now_ns())
    async with _ControlServer(control, settings.tokens) as control_address:
        dialer = GrpcDialer(settings.address, settings.token)
        blobs, boards = dialer.blobs(), dialer.boards()
        runtime = WorkerRuntime(
            SessionSettings(
                worker_id=settings.worker_id,
                session_id=session_id,
                executors=tuple(executors),
                queues=settings.queues,
                labels=tuple(settings.labels.items()),
                slot_count=settings.slot_count,
                version=f"stretto/{version('stretto')}",
                control_address=reachable(control_address, from_kernel=settings.address),
            ),
            dialer=dialer,
            executors={
                name: ValueCarrier(executor, blobs, boards) for name, executor in executors.items()
            },
            clock=clock,
            drain_limits=settings.drain_limits,
            log_sink=dialer,
        )
        control.attach(runtime)
        if settings.handles_signals:
            loop = asyncio.get_running_loop()
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, runtime.drain, number.name)
        log.info(
            "worker.started",
            worker_id=settings.worker_id,
            session_id=session_id,
            kernel_address=settings.address,
            control_address=control_address,
            executors=list(executors),
            queues=list(settings.queues),
            slot_count=settings.slot_count,
        )
        try:
            ended = await runtime.run()
        finally:
            await dialer.close()
    log.info("worker.ended", how=ended.name)
    return ended


def reachable(control_address: str, *, from_kernel: str) -> str:
    """Return the control address as the kernel may dial it; "" when it cannot.

    It is on loopback. A kernel on another machine would dial its own: nothing listens there, and
    this process would count as proven dead while it lives.
    """
    host = from_kernel.rpartition(":")[0].removeprefix("ipv4:").removeprefix("ipv6:").strip("[]")
    here = host in {"localhost", "::1"} or host.startswith("127.")
    return control_address if here else ""


class _ControlServer:
    """The control service on a free loopback port, while the block runs.

    Its server comes with the extra `server`. An install without it has no control address: the
    kernel then waits for the leases of a dead worker to expire.
    """

    def __init__(self, control: WorkerControl, tokens: Tokens | None) -> None:
        self._control = control
        self._tokens = tokens
        self._server: object = None

    async def __aenter__(self) -> str:
        try:
            from stretto_core.rpc.server import RpcServer, ServerSettings  # noqa: PLC0415
        except ImportError:
            return ""
        server = RpcServer(ServerSettings(address="127.0.0.1:0"), tokens=self._tokens)
        server.add(services.add_WorkerControlServiceServicer_to_server, self._control)
        port = await server.start()
        await server.set_serving()
        self._server = server
        self._drain = server.drain
        return f"127.0.0.1:{port}"

    async def __aexit__(self, *_: object) -> None:
        if self._server is not None:
            await self._drain(0)
