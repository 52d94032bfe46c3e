"""Runs one world from one integer; as a program, prints what seeds come to.

python -m tests.simulation.simulate SEED [SEED ...]
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from dataclasses import asdict, dataclass
from typing import NoReturn

import structlog
from stretto_core.clock import NS_PER_S
from stretto_core.testing.log_watch import InvariantBroken
from stretto_core.testing.seeded import random_for
from stretto_core.testing.trace import Trace
from stretto_core.testing.virtual_loop import START_NS, VirtualLoop

from tests.simulation.ending import check_end
from tests.simulation.misfortunes import Misfortunes
from tests.simulation.sim_kernel import SimKernel
from tests.simulation.world import Scale, World

SMALL = Scale()


@dataclass(frozen=True, slots=True)
class Report:
    """What a world came to. `digest` covers every stored byte and position."""

    seed: int
    digest: str
    event_count: int
    event_types: dict[str, int]
    fault_counts: dict[str, int]
    bodies_started: int
    answers_checked: int
    virtual_s: float
    callback_count: int


class SimulationFailed(AssertionError):
    """A law was broken or the world did not end; the message says how to see it again."""


def simulate(seed: int, scale: Scale = SMALL) -> Report:
    """Run the world of `seed` and return what it came to. Raises SimulationFailed."""
    loop = VirtualLoop(random_for(seed, "order"))
    trace = Trace(loop)
    logging = structlog.get_config()
    structlog.configure(processors=[_noting(trace, loop)], cache_logger_on_first_use=False)
    try:
        return loop.run(_live(loop, seed, scale, trace))
    except Exception as error:
        raise SimulationFailed(
            f"seed {seed}: {_innermost(error)!r}\n{trace}\nsee it again: "
            f"python -m tests.simulation.simulate {seed}"
        ) from error
    finally:
        structlog.configure(**logging)


async def _live(loop: VirtualLoop, seed: int, scale: Scale, trace: Trace) -> Report:
    world = World(loop, seed, scale, trace)
    misfortunes = Misfortunes(world)
    clients = world.start()
    await world.unless_failed(misfortunes.strike())
    misfortunes.end()
    await world.unless_failed(_until_ended(world, clients))
    owner = await world.unless_failed(_settled_owner(world))
    await world.unless_failed(check_end(world, owner))
    types = Counter(event.type.rpartition(".")[2] for event in world.store.events)
    return Report(
        seed=seed,
        digest=world.watch.digest(),
        event_count=world.watch.event_count,
        event_types=dict(sorted(types.items())),
        fault_counts=dict(sorted(misfortunes.counts.items())),
        bodies_started=len(world.ledger.started),
        answers_checked=world.witness.answers_checked,
        virtual_s=(loop.now_ns - START_NS) / NS_PER_S,
        callback_count=loop.callback_count,
    )


async def _until_ended(world: World, clients: asyncio.Future[list[None]]) -> None:
    try:
        async with asyncio.timeout(world.scale.calm_s_max):
            await clients
    except TimeoutError:
        left = [run_id for run_id, run in world.laws.runs.items() if run.end is None]
        raise InvariantBroken(
            f"5: {world.scale.calm_s_max} s after the last fault not all has ended: {left}\n"
            f"{world.loop.pending_report()}"
        ) from None


async def _settled_owner(world: World) -> SimKernel:
    """Return the kernel that owns the log, once it has written what it had to."""
    async with asyncio.timeout(world.scale.calm_s_max):
        while True:
            await asyncio.sleep(1.0)
            for slot in world.kernels:
                if slot.running is not None and slot.running.is_settled(world.laws.runs):
                    return slot.running


def _noting(trace: Trace, loop: VirtualLoop) -> structlog.typing.Processor:
    """Return what puts the log lines of the processes into the trace instead of printing them.

    A line with a traceback is a bug of ours, even if the process healed itself.
    """

    def note(_: object, method: str, line: structlog.typing.EventDict) -> NoReturn:
        details = " ".join(f"{key}={value}" for key, value in line.items() if key != "event")
        trace.note(method, f"{line['event']} {details}")
        if line.get("exc_info"):
            loop.call_exception_handler({"message": f"logged with a traceback: {details}"})
        raise structlog.DropEvent

    return note


def _innermost(error: BaseException) -> BaseException:
    """Return the first error inside a group of a client's tasks."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def main() -> int:
    """Run the seeds named on the command line."""
    failed = 0
    for seed in map(int, sys.argv[1:]):
        try:
            report = simulate(seed)
        except SimulationFailed as failure:
            failed += 1
            sys.stdout.write(f"{failure}\n")
        else:
            sys.stdout.write(json.dumps(asdict(report)) + "\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
