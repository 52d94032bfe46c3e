"""Field masks: only some fields of what is read (AIP-157)."""

from __future__ import annotations

from typing import TypeVar

from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message

M = TypeVar("M", bound=Message)


def masked(message: M, mask: FieldMask) -> M:
    """Return the message with the fields that the mask names; an empty one names all."""
    if not mask.paths:
        return message
    shown = type(message)()
    mask.MergeMessage(message, shown)
    return shown
