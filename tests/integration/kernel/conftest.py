"""A kernel on a database of its own, and the projector beside it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from stretto_kernel.adapters.view_tables import ViewTables
from stretto_kernel.owned_partition import RUN_CODEC
from stretto_kernel.projections.projector import Projector
from stretto_kernel.projections.registry import VIEWS

from tests.integration.kernel.serving import PARTITION, Served, served


@pytest.fixture
async def kernel(fresh_database: str) -> AsyncIterator[Served]:
    """A kernel that serves."""
    async with served(fresh_database) as kernel:
        yield kernel


@pytest.fixture
async def projector(kernel: Served) -> AsyncIterator[None]:
    """Keeps the kernel's views."""
    tables = ViewTables(PARTITION, kernel.log.tracking)
    running = asyncio.create_task(Projector(kernel.log, tables, VIEWS, RUN_CODEC).run())
    yield
    running.cancel()
