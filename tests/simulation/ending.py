"""What must hold when a world has come to its end."""

from __future__ import annotations

import asyncio

from stretto.run.v1 import events_pb2 as ev
from stretto_core.ids import RunId
from stretto_core.testing.log_watch import InvariantBroken
from stretto_sdk.worker import effects

from tests.simulation.laws import Laws, TaskFacts
from tests.simulation.log_fold import picture
from tests.simulation.random_plans import NARROW_QUEUE
from tests.simulation.sim_body import Ledger
from tests.simulation.sim_kernel import SimKernel
from tests.simulation.sim_views import rebuilt
from tests.simulation.world import World


async def check_end(world: World, owner: SimKernel) -> None:
    """Check the whole log against what bodies reported and memory holds. Raises InvariantBroken."""
    world.watch.catch_up()
    _every_run_ended(world.laws)
    _results_are_what_bodies_reported(world.laws, world.ledger)
    _memory_is_the_fold(world, owner)
    await _views_are_the_fold(world)
    await _everything_is_sealed(world)


def _every_run_ended(laws: Laws) -> None:
    for run in laws.runs.values():
        if run.end is None:
            raise InvariantBroken(f"5: {run.run_id} has not ended")
    if laws.open_leases(NARROW_QUEUE):
        raise InvariantBroken("7: leases are open when every run has ended")


def _results_are_what_bodies_reported(laws: Laws, ledger: Ledger) -> None:
    for run in laws.runs.values():
        for name, task in run.tasks.items():
            _result_is_reported(f"namespaces/default/runs/{run.run_id}/tasks/{name}", task, ledger)


def _result_is_reported(work_item: str, task: TaskFacts, ledger: Ledger) -> None:
    for epoch, outcome in task.outcomes.items():
        if not isinstance(outcome, ev.AttemptSucceeded):
            continue
        reported = ledger.reported.get(effects.LeaseKey(work_item, epoch))
        if not isinstance(reported, effects.Succeeded) or reported.result is None:
            raise InvariantBroken(f"3: {work_item} epoch {epoch}: no body reported this result")
        if (outcome.result, tuple(outcome.artifacts)) != (reported.result, reported.artifacts):
            raise InvariantBroken(f"3: {work_item} epoch {epoch}: another result was accepted")


def _memory_is_the_fold(world: World, owner: SimKernel) -> None:
    """2: what the kernel holds in memory is what a stranger folds from the log."""
    now_ns = owner.clock.now_ns()
    for run_id in world.laws.runs:
        held = owner.state_of(RunId(run_id))
        if held is None:
            continue
        folded = world.fold.held(run_id, world.laws.runs[run_id].version)
        if picture(held, now_ns) != picture(folded, now_ns):
            raise InvariantBroken(f"2: the memory of {run_id} is not the fold of its log")


async def _views_are_the_fold(world: World) -> None:
    """2: the views that survived their projectors are what one pass over the log makes."""
    last = world.store.events[-1].position
    async with asyncio.timeout(60.0):
        while True:
            await asyncio.sleep(0.1)
            if all(position >= last for position in world.index.positions.values()):
                break
    expected = await rebuilt(world.store)
    for target, rows in expected.tables.items():
        if world.index.tables[target] != rows:
            raise InvariantBroken(f"2: the view {target.table} is not the fold of the log")


async def _everything_is_sealed(world: World) -> None:
    """Whatever was recorded lies under a seal, a moment after the last of it."""
    async with asyncio.timeout(60.0):
        while world.seal_laws.unsealed_count:
            await asyncio.sleep(0.5)
            world.watch.catch_up()
