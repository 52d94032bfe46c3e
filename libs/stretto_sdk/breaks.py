"""What breaks and is begun again: how long to wait for that, and when to give up."""

from __future__ import annotations

import asyncio
import random

from stretto_core.errors import Refusal
from stretto_core.rpc.retry import RetryPolicy


class Breaks:
    """The breaks of one stream or upload since it last went well.

    The retry budget starts with the first of them: how long all was well before does not count.
    """

    def __init__(self, policy: RetryPolicy) -> None:
        self._policy = policy
        self._count = 0
        self._give_up_s = 0.0

    def are_over(self) -> None:
        """It goes well again."""
        self._count = 0

    async def wait(self, refused: Refusal) -> None:
        """Return when it may be begun again. Raises `refused` when it may not, or no more."""
        loop = asyncio.get_running_loop()
        if self._count == 0:
            self._give_up_s = loop.time() + self._policy.budget_ms / 1_000
        delay_ms = self._policy.delay_ms(refused, self._count, random.random())
        if delay_ms is None or loop.time() + delay_ms / 1_000 >= self._give_up_s:
            raise refused
        self._count += 1
        await asyncio.sleep(delay_ms / 1_000)
