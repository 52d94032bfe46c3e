"""What stands between the wire and a handler: identity, permission, deadline, translation, log.

A handler is wrapped once, when it is registered, not at every call: a call passes one function of
ours, and a successful one writes no log line. Bad input never ends as INTERNAL or UNKNOWN: bytes
that are no message are INVALID_ARGUMENT, a method without a handler is UNIMPLEMENTED.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Mapping
from contextlib import aclosing
from typing import Any, NoReturn, TypeAlias

import grpc
import structlog
from google.protobuf.message import DecodeError
from stretto.common.v1.permission_pb2 import Permission

from stretto_core.errors import (
    Exhausted,
    Internal,
    InvalidArgument,
    Refusal,
    Unimplemented,
)
from stretto_core.rpc.call import Call, begin_call
from stretto_core.rpc.identity import Tokens, authorize
from stretto_core.rpc.open_streams import OpenStreams
from stretto_core.rpc.permissions import required_permissions
from stretto_core.rpc.status import code_of, trailing
from stretto_core.rpc.time_limit import TimeLimit
from stretto_core.telemetry.metrics import Counter, Registry
from stretto_core.telemetry.trace import HEADER, parse_traceparent

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"


class MessageTooLarge(Exhausted):
    """The answer exceeds the message limit: ask for less at a time."""

    reason = "MESSAGE_TOO_LARGE"
    default_retry_delay_ms = None


class _Undecodable:
    """Stands for a request whose bytes are not its message."""


_UNDECODABLE = _Undecodable()


class Guard:
    """Wraps the handlers of services.

    unary_ms_max: how long a unary call may take whose caller names no deadline.
    message_bytes_max: a larger unary answer is refused with MESSAGE_TOO_LARGE.
    """

    def __init__(
        self,
        tokens: Tokens,
        *,
        registry: Registry | None = None,
        unary_ms_max: int = 300_000,
        message_bytes_max: int = 4 << 20,
    ) -> None:
        self.tokens = tokens
        self.open_streams = OpenStreams(tokens)
        self.registry = registry or Registry()
        self.time_limit = TimeLimit(unary_ms_max / 1_000)
        self.message_bytes_max = message_bytes_max
        self.log = structlog.get_logger("stretto.rpc")

    def wrap(self, service_name: str, handlers: Mapping[str, Handler]) -> dict[str, Handler]:
        """Return the handlers of a service, each guarded. Raises PermissionMissing."""
        needed = required_permissions(service_name)
        return {
            name: _guarded(self, f"{service_name}/{name}", needed[name], handler)
            for name, handler in handlers.items()
        }


def unknown_method_handler(method: str) -> Handler:
    """Return what answers a call of a method that no service here has."""

    async def refuse(_request: bytes, context: grpc.aio.ServicerContext[Any, Any]) -> NoReturn:
        refusal = Unimplemented("no such method here", reason="UNKNOWN_METHOD", method=method)
        await context.abort(*trailing(refusal))

    return grpc.unary_unary_rpc_method_handler(refuse)


def _guarded(guard: Guard, method: str, needed: Permission.ValueType, handler: Handler) -> Handler:
    plain: Any = (
        handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream
    )
    if not inspect.iscoroutinefunction(plain) and not inspect.isasyncgenfunction(plain):
        # The generated base class's own method: in the contract, not served by this version.
        plain = _not_served(method)
    guarded: Any = _GuardedMethod(guard, method, needed, plain, handler)
    behaviour = guarded.stream if handler.response_streaming else guarded.unary
    decode = handler.request_deserializer
    if handler.request_streaming:
        make: Any = (
            grpc.stream_stream_rpc_method_handler
            if handler.response_streaming
            else grpc.stream_unary_rpc_method_handler
        )
        decode = _refusing(decode)
    else:
        make = (
            grpc.unary_stream_rpc_method_handler
            if handler.response_streaming
            else grpc.unary_unary_rpc_method_handler
        )
        decode = _marking(decode)
    # A unary answer is encoded inside the guard, so that a failure there is translated as well.
    encode = handler.response_serializer if handler.response_streaming else None
    made: Handler = make(behaviour, request_deserializer=decode, response_serializer=encode)
    return made


class _GuardedMethod:
    """One guarded method; holds what its calls share."""

    def __init__(
        self,
        guard: Guard,
        method: str,
        needed: Permission.ValueType,
        plain: Callable[..., Any],
        handler: Handler,
    ) -> None:
        self._guard = guard
        self._method = method
        self._needed = needed
        self._plain = plain
        self._encode: Callable[[Any], bytes] = handler.response_serializer or bytes
        self._counters: dict[str, Counter] = {}
        self._seconds = guard.registry.histogram(
            "stretto_rpc_seconds", "Time from the first byte to the end of a call.", rpc=method
        )

    async def unary(self, request: Any, context: Any) -> bytes:
        """Serve one call with one answer."""
        loop = asyncio.get_running_loop()
        started_s = loop.time()
        try:
            call = self._admit(request, context, started_s)
            if call.deadline_s is None:
                answer = await self._guard.time_limit.within(self._plain(request, context))
            else:
                # When it passes, gRPC itself cancels this task.
                answer = await self._plain(request, context)
            encoded = self._encode(answer)
            if len(encoded) > self._guard.message_bytes_max:
                raise MessageTooLarge("the answer is too large", size_bytes=str(len(encoded)))
        except BaseException as error:
            ending = self._end(error, request, context)
            del request, context
            await ending
        self._count("OK")
        self._seconds.observe(loop.time() - started_s)
        return encoded

    async def stream(self, request: Any, context: Any) -> None:
        """Serve one call with a stream of answers; each is written when the peer can take it."""
        try:
            self._admit(request, context, asyncio.get_running_loop().time())
            with self._guard.open_streams.until_revoked(_header(context, "authorization")):
                answers = self._plain(request, context)
                if inspect.isawaitable(answers):
                    await answers
                else:
                    async with aclosing(answers):
                        async for answer in answers:
                            await context.write(answer)
        except BaseException as error:
            ending = self._end(error, request, context)
            del request, context
            await ending
        self._count("OK")

    def _admit(self, request: Any, context: Any, now_s: float) -> Call:
        authorization = _header(context, "authorization")
        traceparent = _header(context, HEADER) or ""
        if traceparent and parse_traceparent(traceparent) is None:
            traceparent = ""
        peer = context.peer()
        principal = authorize(authorization, peer, self._needed, self._guard.tokens)
        if request is _UNDECODABLE:
            raise _undecodable()
        remaining_s = context.time_remaining()
        deadline_s = None if remaining_s is None else now_s + remaining_s
        call = Call(self._method, principal, deadline_s, traceparent, peer)
        begin_call(call)
        return call

    async def _end(self, error: BaseException, request: Any, context: Any) -> NoReturn:
        """End the call with what `error` means; raises whatever ends it in gRPC.

        gRPC's context keeps that, and its traceback has every frame on the way: none of them may
        have the context still, or a refused call and all it read is garbage only a collection
        finds.
        """
        match error:
            case Refusal():
                refusal = error
                code = code_of(refusal).name
                self._guard.log.info(
                    "rpc.refused",
                    rpc=self._method,
                    code=code,
                    reason=refusal.reason_word,
                    message=str(refusal),
                    request_id=getattr(request, "request_id", None),
                )
            case grpc.aio.AbortError():
                self._count("ABORTED_BY_HANDLER")
                raise error
            case asyncio.CancelledError():
                self._count("CANCELLED")
                raise error
            case Exception():
                self._guard.log.error("rpc.failed", rpc=self._method, exc_info=error)
                refusal = Internal("a bug of this service; its log has the details")
                code = "INTERNAL"
            case _:
                raise error
        self._count(code)
        error.__traceback__ = None
        aborting = context.abort(*trailing(refusal))
        del context
        await aborting
        raise AssertionError("abort raises")

    def _count(self, code: str) -> None:
        counter = self._counters.get(code)
        if counter is None:
            counter = self._counters[code] = self._guard.registry.counter(
                "stretto_rpc_calls_total", "Calls served, by code.", rpc=self._method, code=code
            )
        counter.add()


def _header(context: Any, name: str) -> str | None:
    """Return the last value that the caller sent under a name."""
    found: str | None = None
    for key, value in context.invocation_metadata() or ():
        if key == name:
            found = value
    return found


def _undecodable() -> InvalidArgument:
    return InvalidArgument("the bytes are not a message of this method", reason="UNDECODABLE")


def _marking(decode: Callable[[bytes], Any] | None) -> Callable[[bytes], Any] | None:
    """Return a decoder for unary requests: gRPC itself answers a failure with UNKNOWN."""
    if decode is None:
        return None

    def decode_or_mark(encoded: bytes) -> Any:
        try:
            return decode(encoded)
        except DecodeError:
            return _UNDECODABLE

    return decode_or_mark


def _refusing(decode: Callable[[bytes], Any] | None) -> Callable[[bytes], Any] | None:
    """Return a decoder for request streams: it fails inside the handler's own read."""
    if decode is None:
        return None

    def decode_or_refuse(encoded: bytes) -> Any:
        try:
            return decode(encoded)
        except DecodeError:
            raise _undecodable() from None

    return decode_or_refuse


def _not_served(method: str) -> Callable[[Any, Any], Any]:
    async def refuse(_request: Any, _context: Any) -> NoReturn:
        raise Unimplemented("this version does not serve this method yet", method=method)

    return refuse
