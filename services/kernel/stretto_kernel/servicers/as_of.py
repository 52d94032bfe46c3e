"""AsOf: the moment that a read names, parsed the same way for every service."""

from __future__ import annotations

from stretto.common.v1.as_of_pb2 import AsOf
from stretto_core.ids import Partition

from stretto_kernel.app.moments import AtPosition, AtTime, AtVersion, Moment
from stretto_kernel.servicers.fields import Fields

YEAR_9999_S = 253_402_300_799
"""The last second that a Timestamp may say."""


def parse_as_of(fields: Fields, as_of: AsOf, partition: Partition) -> Moment | None:
    """Return the moment in a request's field `as_of`; None: as it is. Notes what is wrong."""
    match as_of.WhichOneof("moment"):
        case "version":
            if as_of.version < 1:
                fields.wrong("as_of.version", "must be 1 or more")
            return AtVersion(as_of.version)
        case "position":
            if as_of.position.partition and as_of.position.partition != partition:
                fields.wrong("as_of.position.partition", "is not a partition of this kernel")
            if as_of.position.number < 1:
                fields.wrong("as_of.position.number", "must be 1 or more")
            return AtPosition(as_of.position.number)
        case "time":
            seconds, nanos = as_of.time.seconds, as_of.time.nanos
            if not (0 <= seconds <= YEAR_9999_S and 0 <= nanos < 1_000_000_000):
                fields.wrong("as_of.time", "must be an instant from 1970 to 9999")
                return AtTime(0)
            return AtTime(as_of.time.ToNanoseconds())
        case _:
            return None
