"""A plain unary echo over gRPC, nothing of ours in it: `serve`, or `call` one that serves.

`python -m tests.bench.echo serve` prints its address and serves until killed; `... call ADDRESS
CALLS OUTSTANDING` prints how many calls a second that many callers made.
"""

from __future__ import annotations

import asyncio
import sys
import time

import grpc
import uvloop

MESSAGE = b"x" * 100


class Echo(grpc.GenericRpcHandler):
    """Whatever is called answers what came in."""

    def service(self, _call: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes]:
        """Return the one handler there is."""
        return grpc.unary_unary_rpc_method_handler(_echo)


async def _echo(message: bytes, _context: object) -> bytes:
    return message


async def serve() -> None:
    """Serve until killed."""
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((Echo(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"127.0.0.1:{port}", flush=True)  # noqa: T201 - whoever started it reads this
    await server.wait_for_termination()


async def call(address: str, calls: int, outstanding: int) -> None:
    """Warm up with a tenth of the calls, then make them all."""
    async with grpc.aio.insecure_channel(address) as channel:
        echo: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(
            "/bench.Echo/Echo"
        )

        async def caller(left: range) -> None:
            for _ in left:
                await echo(MESSAGE)

        each = calls // outstanding
        await asyncio.gather(*(caller(range(each // 10 + 1)) for _ in range(outstanding)))
        began_s = time.perf_counter()
        await asyncio.gather(*(caller(range(each)) for _ in range(outstanding)))
        print(each * outstanding / (time.perf_counter() - began_s))  # noqa: T201 - the figure


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        uvloop.run(serve())
    else:
        uvloop.run(call(sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
