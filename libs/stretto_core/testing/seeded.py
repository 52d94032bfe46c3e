"""Random generators that follow from one integer, each named after what it decides.

A generator per use keeps uses apart: one more draw in the network does not change which plans the
clients make, so a shrunk or changed world stays comparable with the one before.
"""

from __future__ import annotations

import random


def random_for(seed: int, use: str) -> random.Random:
    """Return the generator of `use` under `seed`; the same whatever the hash seed."""
    return random.Random(f"{seed}/{use}")
