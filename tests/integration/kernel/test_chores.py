"""Chores of the projector that fail are seen by everybody who asks how the views stand."""

from __future__ import annotations

from stretto_kernel.adapters.chore_board import ChoreBoardTable
from stretto_kernel.adapters.view_tables import ViewTables
from stretto_sdk import Client

from tests.integration.kernel.serving import PARTITION, served


async def test_a_failing_chore_is_shown_until_it_is_well(fresh_database: str) -> None:
    async with served(fresh_database) as kernel, Client(kernel.address) as client:
        board = ChoreBoardTable(ViewTables(PARTITION, kernel.log.tracking))
        await board.note_well("blob-sweep")
        assert not (await client.views()).failing_chores
        await board.note_failing("blob-sweep", "KeyError: its log says more")
        await board.note_failing("blob-sweep", "KeyError: its log says more")
        assert (await client.views()).failing_chores == {
            "blob-sweep": "KeyError: its log says more"
        }
        await board.note_well("blob-sweep")
        assert not (await client.views()).failing_chores
