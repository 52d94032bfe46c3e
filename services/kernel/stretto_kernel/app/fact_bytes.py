"""How large one fact may be: a reader must be able to get it in one message, in every form."""

from __future__ import annotations

from collections.abc import Iterable

from google.protobuf.message import Message
from stretto_core.errors import InvalidArgument

FACT_BYTES_MAX = 1 << 20
"""Of a fact's body, as it is stored. A reader may ask for it decoded, as stored and as JSON, all in
4 MiB.
"""


class FactTooLarge(InvalidArgument):
    """What was asked would be recorded as one fact that no reader could be given."""

    reason = "FACT_TOO_LARGE"


def check_fact_bytes(facts: Iterable[Message]) -> None:
    """Refuse facts beyond the limit, before anything of them is stored. Raises FactTooLarge."""
    for fact in facts:
        if (size_bytes := fact.ByteSize()) > FACT_BYTES_MAX:
            raise FactTooLarge(
                f"this would be one fact of {size_bytes} bytes with all defaults written out, and "
                "encrypted where the namespace asks for that; at "
                f"most {FACT_BYTES_MAX}: add the tasks in smaller slices or spawns",
                size_bytes=str(size_bytes),
                bytes_max=str(FACT_BYTES_MAX),
            )
