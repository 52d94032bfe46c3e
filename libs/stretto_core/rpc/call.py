"""What a handler may know of the call it serves, besides the request."""

from __future__ import annotations

from contextvars import ContextVar
from typing import NamedTuple

from stretto.common.v1.principal_pb2 import Principal


class Call(NamedTuple):
    """The call being served.

    method: its full name, `stretto.run.v1.RunService/StartRun`.
    principal: who calls, from its credentials.
    deadline_s: when the caller stops waiting, on the event loop's clock; None: never said.
    traceparent: the caller's W3C trace context as it came, "" without a valid one.
    peer: where the call comes from, as gRPC writes it.
    """

    method: str
    principal: Principal
    deadline_s: float | None
    traceparent: str
    peer: str


_CURRENT: ContextVar[Call] = ContextVar("call")


def current_call() -> Call:
    """Return the call that the running handler serves. Raises LookupError outside of one."""
    return _CURRENT.get()


def current_principal() -> Principal:
    """Return who makes the call being served. Raises LookupError outside of one."""
    return _CURRENT.get().principal


def begin_call(call: Call) -> None:
    """Make `call` the current one of this asyncio task; each RPC runs in a task of its own."""
    _CURRENT.set(call)
