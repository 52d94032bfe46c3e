"""How many seeds are run: STRETTO_SIM_SEEDS, 200 by default, in blocks that processes can share."""

from __future__ import annotations

import os

import pytest

SEED_COUNT_DEFAULT = 200
BLOCK_SEEDS = 20


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give tests that ask for `seeds` one block after another."""
    if "seeds" in metafunc.fixturenames:
        count = int(os.environ.get("STRETTO_SIM_SEEDS", SEED_COUNT_DEFAULT))
        blocks = [
            range(first, min(first + BLOCK_SEEDS, count)) for first in range(0, count, BLOCK_SEEDS)
        ]
        metafunc.parametrize("seeds", blocks, ids=lambda block: f"{block[0]}-{block[-1]}")
