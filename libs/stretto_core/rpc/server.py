"""A gRPC server of ours: guarded handlers, limits, keepalive, health, reflection, drain.

Made in main, started once. Reflection is loaded when first asked for: no service pays for it at its
start. The port is never shared (no SO_REUSEPORT): a second process on it fails to start.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import grpc
from grpc_health.v1 import health_pb2_grpc

from stretto_core.rpc.guard import Guard, Handler, unknown_method_handler
from stretto_core.rpc.health import HealthBoard
from stretto_core.rpc.identity import Tokens
from stretto_core.rpc.tokens import TokenTable
from stretto_core.telemetry.metrics import Registry

ServicerT = TypeVar("ServicerT")
_REFLECTION = "/grpc.reflection."


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """How a server listens and what it bounds; address port 0 takes any free port."""

    address: str = "127.0.0.1:0"
    message_bytes_max: int = 4 << 20
    unary_ms_max: int = 300_000
    calls_max: int = 10_000
    streams_per_connection_max: int = 2_048
    keepalive_ms: int = 20_000
    keepalive_timeout_ms: int = 10_000
    connection_age_ms: int = 3_600_000
    connection_age_grace_ms: int = 60_000


class RpcServer:
    """Serves guarded services; none is SERVING before `set_serving`."""

    def __init__(
        self,
        settings: ServerSettings,
        *,
        tokens: Tokens | None = None,
        registry: Registry | None = None,
    ) -> None:
        self._settings = settings
        self._guard = Guard(
            tokens or TokenTable(),
            registry=registry,
            unary_ms_max=settings.unary_ms_max,
            message_bytes_max=settings.message_bytes_max,
        )
        self._services: dict[str, dict[str, Handler]] = {}
        self._ahead: dict[str, dict[str, Handler]] = {}
        self._health = HealthBoard()
        self._server: grpc.aio.Server | None = None

    def add(
        self,
        register: Callable[[ServicerT, Any], None],
        servicer: ServicerT,
        *,
        ahead: Sequence[str] = (),
    ) -> None:
        """Serve `servicer`; `register` is the generated add_XServicer_to_server.

        ahead: its methods whose calls do not wait for their handlers in the line of all calls, but
        each in one of its own. Each such line costs every call a little: a handful at most.
        Raises PermissionMissing when a method of its contract names no permission.
        """
        added: dict[str, dict[str, Handler]] = {}
        register(servicer, cast(Any, _Registrations(self._guard, added)))
        self._services |= added
        for name, methods in added.items():
            if ahead:
                self._ahead[name] = {method: methods[method] for method in ahead}

    async def start(self) -> int:
        """Listen and return the port, NOT_SERVING yet. Raises OSError for a taken address."""
        self.add(health_pb2_grpc.add_HealthServicer_to_server, self._health.servicer)
        await self._health.watch_over(self._services)
        settings = self._settings
        server = grpc.aio.server(
            options=_options(settings), maximum_concurrent_rpcs=settings.calls_max
        )
        handlers: list[grpc.GenericRpcHandler] = [
            grpc.method_handlers_generic_handler(name, methods)
            for name, methods in self._services.items()
        ]
        server.add_generic_rpc_handlers([*handlers, _LastResort(self._guard, [*self._services])])
        for name, methods in self._ahead.items():
            server.add_registered_method_handlers(name, methods)
        try:
            port = server.add_insecure_port(settings.address)
        except RuntimeError as error:
            raise OSError(errno.EADDRINUSE, f"cannot listen on {settings.address}") from error
        await server.start()
        self._server = server
        return port

    async def set_serving(self, *, serving: bool = True, service: str | None = None) -> None:
        """Say whether one service (None: all) serves."""
        await self._health.set_serving(serving=serving, service=service)

    async def drain(self, grace_ms: int) -> None:
        """Say NOT_SERVING, take no new call, let those under way end for `grace_ms`, then cut them.

        Handlers of streams learn of a drain from their service, which ends them. Safe to repeat.
        """
        await self._health.drain()
        if self._server is not None:
            await self._server.stop(grace_ms / 1_000)

    async def wait_ended(self) -> None:
        """Return once the server was drained."""
        assert self._server is not None, "only a started server ends"
        await self._server.wait_for_termination()


class _Registrations:
    """Takes what the generated registration functions hand to a server, and guards it."""

    def __init__(self, guard: Guard, services: dict[str, dict[str, Handler]]) -> None:
        self._guard = guard
        self._services = services

    def add_generic_rpc_handlers(self, _handlers: Sequence[object]) -> None:
        """Nothing: the same handlers come by method below."""

    def add_registered_method_handlers(
        self, service_name: str, handlers: Mapping[str, Handler]
    ) -> None:
        """Guard the handlers of a service."""
        self._services[service_name] = self._guard.wrap(service_name, handlers)


class _LastResort(grpc.GenericRpcHandler):
    """Answers what no service answers: reflection, once it is asked for, and unknown methods."""

    def __init__(self, guard: Guard, service_names: list[str]) -> None:
        self._guard = guard
        self._service_names = service_names
        self._reflection: dict[str, Handler] | None = None

    def service(self, details: grpc.HandlerCallDetails) -> Handler:
        method = str(details.method)
        if method.startswith(_REFLECTION):
            handler = self._reflect().get(method.removeprefix("/"))
            if handler is not None:
                return handler
        return unknown_method_handler(method.removeprefix("/"))

    def _reflect(self) -> dict[str, Handler]:
        if self._reflection is None:
            # Loaded at the first question: it costs time that no start should pay.
            from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc  # noqa: PLC0415

            services: dict[str, dict[str, Handler]] = {}
            servicer = reflection.aio.ReflectionServicer(
                [*self._service_names, reflection.SERVICE_NAME]
            )
            reflection_pb2_grpc.add_ServerReflectionServicer_to_server(
                servicer, cast(Any, _Registrations(self._guard, services))
            )
            self._reflection = {
                f"{name}/{method}": handler
                for name, handlers in services.items()
                for method, handler in handlers.items()
            }
        return self._reflection


def _options(settings: ServerSettings) -> list[tuple[str, int]]:
    return [
        ("grpc.so_reuseport", 0),
        ("grpc.max_receive_message_length", settings.message_bytes_max),
        ("grpc.max_send_message_length", settings.message_bytes_max),
        ("grpc.max_concurrent_streams", settings.streams_per_connection_max),
        # By default gRPC kills calls at random, without a word, once 1,000 wait for their handlers;
        # its callers could not tell that they may try again. Ours refuse, and say when.
        ("grpc.server.max_pending_requests", settings.calls_max),
        ("grpc.server.max_pending_requests_hard_limit", settings.calls_max),
        ("grpc.keepalive_time_ms", settings.keepalive_ms),
        ("grpc.keepalive_timeout_ms", settings.keepalive_timeout_ms),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
        ("grpc.max_connection_age_ms", settings.connection_age_ms),
        ("grpc.max_connection_age_grace_ms", settings.connection_age_grace_ms),
    ]
