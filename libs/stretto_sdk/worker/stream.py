"""What was said on one work stream, and how a frame to the kernel is filled within its limits.

Pure: part of the session machine (session.py), which alone changes it. Instants are monotonic
nanoseconds.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

from stretto.work.v1 import work_pb2
from stretto.work.v1 import work_service_pb2 as wire

from stretto_sdk.worker.effects import LeaseKey
from stretto_sdk.worker.held import HeldLeases

FRAME_ITEM_COUNT_MAX: Final = 1_000
FRAME_BYTES_MAX: Final = 3 * 1024 * 1024
"""Below the 4 MiB a message may have, with room for its small parts."""
KEEPALIVE_SHARE_OF_IDLE: Final = 3
"""A stream carries a frame, if need be an empty one, so often within its idle timeout."""


@dataclass(slots=True)
class StreamState:
    """What was said on the current stream. `accepted_count` counts distinct assignments."""

    received_ns: int
    idle_timeout_ns: int
    sent_ns: int = 0
    hello_sent: bool = False
    welcomed: bool = False
    closing: bool = False
    draining_sent: bool = False
    goodbye_sent: bool = False
    drain_asked: bool = False
    accepted_count: int = 0
    credit_sent_count: int = 0
    acknowledgements: deque[LeaseKey] = field(default_factory=deque)

    def keepalive_due_ns(self) -> int:
        """When a frame is sent at the latest, so that the kernel sees that this end lives."""
        return self.sent_ns + self.idle_timeout_ns // KEEPALIVE_SHARE_OF_IDLE

    def idle_due_ns(self) -> int:
        """When the stream is dead unless a frame comes before."""
        return self.received_ns + self.idle_timeout_ns


def fill(frame: wire.WorkRequest, stream: StreamState, leases: HeldLeases, now_ns: int) -> bool:
    """Add acknowledgements, kept spawns and outcomes, and renewals that are due, while they fit.

    Return whether anything was added. What is added counts as sent.
    """
    room = FRAME_ITEM_COUNT_MAX
    while stream.acknowledgements and room:
        key = stream.acknowledgements.popleft()
        frame.acknowledged.add(work_item=key.work_item, epoch=key.epoch)
        room -= 1
    kept_count, bytes_used = _add_kept(frame, leases, room, now_ns)
    room -= kept_count
    for _, held in islice(leases.take_renewals(now_ns), room):
        renewal = frame.renewals.add(token=held.token)
        if held.details is not None and held.outcome is None:
            renewal.details.CopyFrom(held.details)
            bytes_used += held.details.ByteSize()
            held.details_sent_ns = now_ns
            held.details = None
        if bytes_used > FRAME_BYTES_MAX:
            break  # What is due as well goes with the next frame.
    return room < FRAME_ITEM_COUNT_MAX or bool(frame.renewals)


def _add_kept(
    frame: wire.WorkRequest, leases: HeldLeases, room: int, now_ns: int
) -> tuple[int, int]:
    """Add outcomes and spawns in order while they fit; return how many, and their bytes."""
    count = bytes_used = 0
    while count < room and (taken := leases.take_sendable(now_ns)) is not None:
        key, request_id, kept = taken
        kept_bytes = kept.ByteSize()
        if bytes_used + kept_bytes > FRAME_BYTES_MAX and count:
            leases.put_back(key, request_id)
            break
        bytes_used += kept_bytes
        if isinstance(kept, work_pb2.Spawn):
            frame.spawns.append(kept)
        else:
            frame.outcomes.append(kept)
        count += 1
    return count, bytes_used
