"""The view `blackboard` against the fold of the log, as of every version of random histories."""

from __future__ import annotations

import asyncio
from random import Random

import pytest
from stretto_core.eventlog.recorded import Recorded
from stretto_kernel.domain.run import RunEvent, evolve, new_run
from stretto_kernel.domain.run.blackboard_state import BoardEntry
from stretto_kernel.projections.blackboard import BLACKBOARD, BoardRow, entry_of
from stretto_kernel.projections.store import Target
from stretto_kernel.projections.view import Row

from tests.model.hands import Hands
from tests.model.runs import NAMESPACE, RUN_ID
from tests.model.test_past_model import stored
from tests.simulation.sim_views import rebuilt

HISTORIES = 24
STEPS = 60
DEPTH = ("put", "put", "delete", "lease", "complete", "lose", "kill", "retry")


def history(seed: int) -> list[Recorded[RunEvent]]:
    """Writes above all, by whoever may and may not, over ends and retries."""
    random = Random(seed)
    hands = Hands(random)
    for _ in range(STEPS):
        hands.act(random.choice(DEPTH), random)
    return hands.story.log


def as_of(rows: list[BoardRow], version: int) -> dict[str, BoardEntry]:
    """Return what the view shows as of a version, as its SQL says it."""
    newest: dict[str, BoardRow] = {}
    for row in sorted(rows, key=lambda row: row.from_version):
        if row.from_version <= version:
            newest[row.key] = row
    return {key: entry_of(row) for key, row in newest.items() if not row.deleted}


@pytest.mark.parametrize("block", range(4))
def test_the_view_is_the_fold_at_every_version(block: int) -> None:
    written = 0
    for seed in range(block * HISTORIES // 4, (block + 1) * HISTORIES // 4):
        log = history(seed)
        views = asyncio.run(_rebuilt(log))
        rows = [BoardRow(*row) for row in views]
        state = new_run(RUN_ID, NAMESPACE)
        for recorded in log:
            evolve(state, recorded)
            entries = {} if state.board is None else state.board.entries
            assert as_of(rows, state.version) == entries, f"seed {seed}, version {state.version}"
            written += len(entries)
    assert written, "nothing was ever written"


async def _rebuilt(log: list[Recorded[RunEvent]]) -> list[Row]:
    views = await rebuilt(await stored(log))
    return list(views.tables[Target(BLACKBOARD)].values())
