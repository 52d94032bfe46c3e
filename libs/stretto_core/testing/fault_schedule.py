"""When which fault strikes: drawn from a seed, told to the trace, over at a given instant."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from stretto_core.testing.trace import Trace


@dataclass(frozen=True, slots=True)
class FaultKind:
    """Something that may go wrong.

    weight: how often, compared with the others; 0 = never.
    strike: does it and says what it did; None when there was nothing to do it to.
    """

    name: str
    weight: int
    strike: Callable[[], str | None]


class FaultSchedule:
    """Strikes with one kind after another until its time is over.

    mean_interval_s: how far apart strikes are on average, virtual seconds.
    """

    def __init__(
        self,
        kinds: Sequence[FaultKind],
        draws: random.Random,
        trace: Trace,
        *,
        mean_interval_s: float,
    ) -> None:
        self._kinds = [kind for kind in kinds if kind.weight > 0]
        self._draws = draws
        self._trace = trace
        self._mean_interval_s = mean_interval_s
        self.counts: dict[str, int] = {}

    async def run_for(self, span_s: float) -> None:
        """Strike for `span_s` virtual seconds."""
        end_s = asyncio.get_running_loop().time() + span_s
        while self._kinds:
            wait_s = self._draws.expovariate(1 / self._mean_interval_s)
            if asyncio.get_running_loop().time() + wait_s >= end_s:
                break
            await asyncio.sleep(wait_s)
            weights = [kind.weight for kind in self._kinds]
            kind = self._draws.choices(self._kinds, weights)[0]
            done = kind.strike()
            if done is not None:
                self.counts[kind.name] = self.counts.get(kind.name, 0) + 1
                self._trace.note("fault", f"{kind.name}: {done}")
        await asyncio.sleep(max(0.0, end_s - asyncio.get_running_loop().time()))
