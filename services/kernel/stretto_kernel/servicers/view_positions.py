"""Reading one's own writes from a view: the position it must have reached."""

from __future__ import annotations

from stretto.common.v1.lease_pb2 import Position
from stretto_core.ids import Partition

from stretto_kernel.servicers.fields import Fields


def least_position(fields: Fields, position: Position, partition: Partition) -> int:
    """Return the position that a view must have reached."""
    if position.partition and position.partition != partition:
        fields.wrong("min_position.partition", "is not a partition of this kernel")
    return fields.count("min_position.number", position.number)
