r"""Reads recorded events from the bus with a NATS client and the contracts; nothing else of ours.

    mkdir read
    python -m grpc_tools.protoc -I proto --python_out=read proto/stretto/common/v1/principal.proto \
        proto/stretto/eventlog/v1/recorded_event.proto \
        proto/stretto/eventlog/v1/relayed_events.proto
    PYTHONPATH=read python examples/bus/read_events.py nats://TOKEN@HOST:PORT [COUNT]

A durable consumer: JetStream remembers what was acknowledged; a reader that is started again goes
on where it was. Delivery is at least once: what has a version that was seen is dropped; a version
that is missing was lost by the bus and has to be read from EventLogService.ReadStream.

Writes a line an event: position, stream, version, type. COUNT ends it once so many
were written, after what was fetched with them.
"""

import asyncio
import sys

import nats
from stretto.eventlog.v1.recorded_event_pb2 import RecordedEvent
from stretto.eventlog.v1.relayed_events_pb2 import RelayedEvents

SUBJECTS = "stretto.*.run.>"
NAME = "example-reader"


async def read(url: str, count: int | None) -> None:
    """Write events until `count` of them were written (None: until Ctrl-C)."""
    client = await nats.connect(url)
    messages = await client.jetstream().pull_subscribe(SUBJECTS, durable=NAME, stream="STRETTO")
    seen: dict[str, int] = {}
    while count is None or count > 0:
        try:
            fetched = await messages.fetch(100, timeout=1)
        except nats.errors.TimeoutError:
            continue  # Nothing came.
        for message in fetched:
            for event in RelayedEvents.FromString(message.data).events:
                recorded = RecordedEvent.FromString(event.stored_bytes)
                before = seen.get(recorded.stream)
                if before is not None and event.version <= before:
                    continue  # It came again.
                if event.version != (before or 0) + 1:
                    print(f"missing: {recorded.stream} after {before or 0}", file=sys.stderr)
                seen[recorded.stream] = event.version
                print(event.position, recorded.stream, event.version, recorded.type, flush=True)
                count = None if count is None else count - 1
            await message.ack()  # After the work: a crash before it gives the message again.
    await client.close()


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("usage: read_events.py nats://TOKEN@HOST:PORT [COUNT]")
    limit = int(sys.argv[2]) if len(sys.argv) > 2 else None
    asyncio.run(read(sys.argv[1], limit))
