"""What was said on one work stream, and how a frame to the kernel is filled within its limits.

Pure: part of the session machine (session.py), which alone changes it. Instants are monotonic
nanoseconds.
"""

from __future__ import annotations

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
ACKNOWLEDGE_NS: Final = 1_000_000
"""How long an acknowledgement waits for company: a short body's outcome says as much.

Only where the body before was that short: one that takes its process with it is acknowledged by the
next process at once, and so consumes a try.
"""


@dataclass(slots=True)
class StreamState:
    """What was said on the current stream.

    accepted_count: distinct assignments. unacknowledged: when each is acknowledged at the latest,
    in that order. bodies_are_short: the last one ended before it had to be acknowledged.
    """

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
    unacknowledged: dict[LeaseKey, int] = field(default_factory=dict)
    bodies_are_short: bool = False

    def acknowledge(self, key: LeaseKey, now_ns: int) -> None:
        """Tell soon that the assignment came; its outcome tells it as well."""
        delay_ns = ACKNOWLEDGE_NS if self.bodies_are_short else 0
        self.unacknowledged.setdefault(key, now_ns + delay_ns)

    def acknowledge_due_ns(self) -> int | None:
        """When the oldest assignment is acknowledged at the latest."""
        return next(iter(self.unacknowledged.values()), None)

    def keepalive_due_ns(self) -> int:
        """When a frame is sent at the latest, so that the kernel sees that this end lives."""
        return self.sent_ns + self.idle_timeout_ns // KEEPALIVE_SHARE_OF_IDLE

    def idle_due_ns(self) -> int:
        """When the stream is dead unless a frame comes before."""
        return self.received_ns + self.idle_timeout_ns


def fill(frame: wire.WorkRequest, stream: StreamState, leases: HeldLeases, now_ns: int) -> bool:
    """Add kept spawns and outcomes, renewals that are due, and acknowledgements, while they fit.

    Return whether anything was added. What is added counts as sent.
    """
    room = FRAME_ITEM_COUNT_MAX
    kept_count, bytes_used = _add_kept(frame, stream, leases, now_ns)
    room -= kept_count
    for _, held in islice(leases.take_renewals(now_ns), room):
        renewal = frame.renewals.add(token=held.token)
        room -= 1
        if held.details is not None and held.outcome is None:
            renewal.details.CopyFrom(held.details)
            bytes_used += held.details.ByteSize()
            held.details_sent_ns = now_ns
            held.details = None
        if bytes_used > FRAME_BYTES_MAX:
            break  # What is due as well goes with the next frame.
    due_ns = stream.acknowledge_due_ns()
    is_due = due_ns is not None and due_ns <= now_ns
    if is_due or (stream.unacknowledged and room < FRAME_ITEM_COUNT_MAX):
        stream.bodies_are_short = stream.bodies_are_short and not is_due
        for key in list(islice(stream.unacknowledged, room)):
            del stream.unacknowledged[key]
            frame.acknowledged.add(work_item=key.work_item, epoch=key.epoch)
            room -= 1
    return room < FRAME_ITEM_COUNT_MAX


def _add_kept(
    frame: wire.WorkRequest, stream: StreamState, leases: HeldLeases, now_ns: int
) -> tuple[int, int]:
    """Add outcomes and spawns in order while they fit; return how many, and their bytes."""
    count = bytes_used = 0
    while count < FRAME_ITEM_COUNT_MAX and (taken := leases.take_sendable(now_ns)) is not None:
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
            stream.unacknowledged.pop(key, None)
            stream.bodies_are_short = leases.age_ns(key, now_ns) < ACKNOWLEDGE_NS
        count += 1
    return count, bytes_used
