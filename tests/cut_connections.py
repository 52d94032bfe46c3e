"""A way to a server that breaks now and then: what a network does to who follows something."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

CHUNK_BYTES = 4_096


class CutConnections:
    """Carries bytes between callers and a server, and breaks each connection after some.

    bytes_max: the most that the server says over one connection; None = it is never broken.
    """

    def __init__(self, address: str, chance: random.Random, bytes_max: int | None) -> None:
        self._host, _, self._port = address.rpartition(":")
        self._chance = chance
        self.bytes_max = bytes_max
        self.cut_count = 0
        self.address = ""

    async def serve(self) -> asyncio.Server:
        """Listen on a free port, from now on `address`."""
        server = await asyncio.start_server(self._connect, "127.0.0.1", 0)
        self.address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        return server

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, back = await asyncio.open_connection(self._host, int(self._port))
        except OSError:
            writer.close()
            return
        sending = asyncio.create_task(_carry(reader, back))
        left = None if self.bytes_max is None else self._chance.randrange(self.bytes_max)
        try:
            with suppress(OSError):
                while data := await there.read(CHUNK_BYTES):
                    if left is not None and (left := left - len(data)) < 0:
                        self.cut_count += 1
                        writer.transport.abort()
                        return
                    writer.write(data)
                    await writer.drain()
        finally:
            sending.cancel()
            writer.close()
            back.transport.abort()


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(CHUNK_BYTES):
            writer.write(data)
            await writer.drain()


@asynccontextmanager
async def cut_connections(
    address: str, seed: int, *, bytes_max: int | None
) -> AsyncIterator[CutConnections]:
    """Serve a breaking way to `address`."""
    way = CutConnections(address, random.Random(seed), bytes_max)
    server = await way.serve()
    try:
        yield way
    finally:
        server.close()
