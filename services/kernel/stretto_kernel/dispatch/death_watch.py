"""Proof of a worker process's death: asked of its control address, never guessed from silence.

When a work stream is lost the address is dialed at once and every 100 ms for 1 s. A refused
connection, or an answer with another session id, proves the process gone. Anything else (no answer,
an unreachable host, the same session) proves nothing and the leases live until their TTL.
"""

from __future__ import annotations

import asyncio
import enum
from typing import Protocol

from stretto_core.ids import SessionId

DIAL_INTERVAL_S = 0.1
DIAL_COUNT_MAX = 11


class DialResult(enum.Enum):
    """What a dialed address said, if it did not say who it is."""

    REFUSED = "refused"
    """Nothing listens there: the connection was refused."""
    NO_ANSWER = "no answer"


class WorkerDialer(Protocol):
    """Asks the WorkerControlService at an address which process answers."""

    async def identify(self, address: str) -> SessionId | DialResult:
        """Return the answering process's session id, or why there is none. Never raises."""
        ...


async def is_proven_dead(dialer: WorkerDialer, address: str, session_id: SessionId) -> bool:
    """Dial until the death of `session_id` is proven (True) or the tries are over (False)."""
    if not address:
        return False
    for count in range(DIAL_COUNT_MAX):
        if count:
            await asyncio.sleep(DIAL_INTERVAL_S)
        found = await dialer.identify(address)
        if found is DialResult.REFUSED:
            return True
        if not isinstance(found, DialResult) and found != session_id:
            return True
    return False
