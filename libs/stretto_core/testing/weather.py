"""How bad a simulated network is: the probabilities and delays that its seed draws from.

Pure data. Delays are seconds of virtual time; probabilities are per frame or per call.
"""

from __future__ import annotations

import random
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Weather:
    """What befalls frames and calls.

    delay_s_min, delay_s_max: every frame takes so long, drawn evenly.
    spike: share of frames that take up to `spike_s` more; what follows on the stream waits.
    cut: share of frames at which the stream breaks; both sides lose what was under way.
    duplicate: share of frames and calls that arrive twice.
    lose_request, lose_response: share of calls whose request never arrives, or whose answer.
    """

    delay_s_min: float = 0.000_1
    delay_s_max: float = 0.002
    spike: float = 0.0
    spike_s: float = 2.0
    cut: float = 0.0
    duplicate: float = 0.0
    lose_request: float = 0.0
    lose_response: float = 0.0

    def draw_delay_s(self, draws: random.Random) -> float:
        """Return how long the next frame takes."""
        delay_s = draws.uniform(self.delay_s_min, self.delay_s_max)
        if self.spike and draws.random() < self.spike:
            delay_s += draws.uniform(0, self.spike_s)
        return delay_s


CALM = Weather()
"""A network that only takes time."""
STORM = Weather(
    delay_s_max=0.02,
    spike=0.02,
    cut=0.01,
    duplicate=0.03,
    lose_request=0.05,
    lose_response=0.05,
)
"""A network that breaks every promise it may break."""
