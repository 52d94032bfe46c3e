"""How a moment of a run is named: by a version, an instant, or a position of the log."""

from __future__ import annotations

from datetime import datetime

from stretto.common.v1.as_of_pb2 import AsOf
from stretto.common.v1.lease_pb2 import Position as PositionMessage

from stretto_sdk.errors import InvalidArgument
from stretto_sdk.runs import Position

Moment = int | datetime | Position
"""A version; an aware instant; the position of a write of yours (`run.position`)."""


def as_of_message(moment: Moment | None) -> AsOf | None:
    """Return a moment as the contract has it. Raises InvalidArgument for a naive instant."""
    match moment:
        case None:
            return None
        case datetime():
            if moment.tzinfo is None:
                raise InvalidArgument(f"as_of {moment} has no time zone")
            message = AsOf()
            message.time.FromDatetime(moment)
            # To the end of its microsecond: what was read as this instant had its nanoseconds cut.
            message.time.nanos += 999
            return message
        case Position():
            return AsOf(position=PositionMessage(partition=moment.partition, number=moment.number))
        case int():
            return AsOf(version=moment)
