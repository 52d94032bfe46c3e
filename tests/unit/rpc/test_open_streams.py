"""A stream whose token was removed ends within its bound; others, and anonymous ones, go on."""

from __future__ import annotations

import asyncio
import hashlib
import random

import pytest
from stretto.common.v1.principal_pb2 import PRINCIPAL_KIND_USER, Principal
from stretto_core.rpc.identity import TokenUnknown
from stretto_core.rpc.open_streams import OpenStreams
from stretto_core.rpc.tokens import TokenEntry, TokenTable
from stretto_core.testing.virtual_loop import VirtualLoop


class Tokens:
    """A table that a test changes."""

    def __init__(self, *names: str) -> None:
        self.names = set(names)

    def principal_of(self, token: str) -> Principal | None:
        entries = tuple(
            TokenEntry(
                Principal(kind=PRINCIPAL_KIND_USER, name=name),
                hashlib.sha256(name.encode()).digest(),
            )
            for name in self.names
        )
        return TokenTable(entries).principal_of(token)


async def _stream(streams: OpenStreams, authorization: str | None) -> None:
    with streams.until_revoked(authorization):
        await asyncio.Event().wait()


async def _story() -> None:
    tokens = Tokens("ada", "bob")
    streams = OpenStreams(tokens)
    ada = asyncio.create_task(_stream(streams, "Bearer ada"))
    bob = asyncio.create_task(_stream(streams, "Bearer bob"))
    anonymous = asyncio.create_task(_stream(streams, None))
    done, _ = await asyncio.wait({ada, bob, anonymous}, timeout=10)
    assert not done
    tokens.names.remove("ada")
    done, _ = await asyncio.wait({ada, bob, anonymous}, timeout=2.5)
    assert done == {ada}
    with pytest.raises(TokenUnknown):
        await ada
    # Who goes away by itself is no revoked one.
    bob.cancel()
    with pytest.raises(asyncio.CancelledError):
        await bob
    anonymous.cancel()


def test_a_removed_token_ends_its_streams_and_no_other() -> None:
    loop = VirtualLoop(random.Random(1))
    try:
        loop.run_until_complete(_story())
    finally:
        loop.close()
