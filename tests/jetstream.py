"""What tests do to a JetStream behind the bus's back."""

from __future__ import annotations

import nats


async def wipe(url: str) -> None:
    """Delete everything the bus ever kept: what was published, and every bucket."""
    client = await nats.connect(url)
    stream = client.jetstream()
    for each in await stream.streams_info():
        assert each.config.name is not None
        await stream.delete_stream(each.config.name)
    await client.close()
