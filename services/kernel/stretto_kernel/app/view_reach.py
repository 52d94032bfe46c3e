"""Views trail the log: what to say, and how long to wait, when one has not reached a position."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

from stretto_core.errors import Unavailable

REACH_S = 1.0
"""So long a view is waited for; a projector that is well needs a twentieth of it."""
LOOK_S = 0.02


class ViewBehind(Unavailable):
    """The view has not reached the position asked for: try again."""

    reason = "VIEW_BEHIND"


class OfView(Protocol):
    """What was read of a view."""

    @property
    def position(self) -> int:
        """How far the view was at least; 0 = there is none."""
        ...


Read = TypeVar("Read", bound=OfView)


async def reached(position: int, read: Callable[[], Awaitable[Read]]) -> Read:
    """Return what `read` returns of a view that has reached a position. Raises ViewBehind."""
    loop = asyncio.get_running_loop()
    give_up_s = loop.time() + REACH_S
    while True:
        found = await read()
        if found.position >= position or loop.time() >= give_up_s:
            require_reached(found, position)
            return found
        await asyncio.sleep(LOOK_S)


def require_reached(found: OfView, position: int) -> None:
    """Raise ViewBehind unless the view had reached the position."""
    if found.position < position:
        raise ViewBehind("the view is behind", position=str(found.position), asked=str(position))
