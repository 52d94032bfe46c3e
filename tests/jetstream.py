"""What tests do to a JetStream behind the bus's back."""

from __future__ import annotations

from contextlib import suppress

import nats
from nats.js.errors import NotFoundError
from stretto_core.bus.jetstream import STREAM


async def wipe(url: str) -> None:
    """Delete everything the bus ever published."""
    client = await nats.connect(url)
    with suppress(NotFoundError):
        await client.jetstream().delete_stream(STREAM)
    await client.close()
