"""The faults that strike a world's processes and network, and how they end."""

from __future__ import annotations

import random

from stretto_core.clock import NS_PER_MS
from stretto_core.testing.fault_schedule import FaultKind, FaultSchedule
from stretto_core.testing.process import Process
from stretto_core.testing.seeded import random_for
from stretto_core.testing.weather import CALM, STORM

from tests.simulation.world import WorkerSlot, World

WALL_STEP_MS_MAX = 20_000


class Misfortunes:
    """What befalls `world`, one thing after another, as its seed says."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._draws: random.Random = random_for(world.seed, "misfortunes")
        kinds = (
            FaultKind("worker killed", 4, self._kill_worker),
            FaultKind("worker frozen", 3, self._freeze_worker),
            FaultKind("worker replaced", 2, self._replace_worker),
            FaultKind("worker lost", 2, self._lose_worker),
            FaultKind("worker drained", 1, self._drain_worker),
            FaultKind("kernel drained", 1, self._drain_kernel),
            FaultKind("kernel killed", 4, self._kill_kernel),
            FaultKind("kernel frozen", 2, self._freeze_kernel),
            FaultKind("kernel usurped", 3, self._usurp),
            FaultKind("projector killed", 1, self._kill_projector),
            FaultKind("streams broken", 4, self._break_streams),
            FaultKind("hosts parted", 3, self._part_hosts),
            FaultKind("wall clock set", 2, self._step_wall),
        )
        self._schedule = FaultSchedule(
            kinds,
            random_for(world.seed, "faults"),
            world.trace,
            mean_interval_s=world.scale.fault_interval_s,
        )

    @property
    def counts(self) -> dict[str, int]:
        """How often what struck."""
        return self._schedule.counts

    async def strike(self) -> None:
        """Let faults strike for the world's stormy time."""
        self._world.network.weather = STORM
        self._world.storm.share = self._world.scale.log_fault_share
        await self._schedule.run_for(self._world.scale.stormy_s)

    def end(self) -> None:
        """From now on everything works; what was stopped is woken."""
        world = self._world
        world.trace.note("fault", "no more")
        world.network.weather = CALM
        world.storm.share = 0.0
        world.network.heal()
        for process in self._processes():
            process.thaw()

    def _processes(self) -> list[Process]:
        kernels = [slot.kernel.process for slot in self._world.kernels if slot.kernel is not None]
        workers = [process for slot in self._world.workers for process in slot.processes]
        return [process for process in (*kernels, *workers) if not process.is_dead]

    def _worker(self) -> Process | None:
        running = [slot.newest for slot in self._world.workers if slot.newest.is_running]
        return self._draws.choice(running) if running else None

    def _kernel(self) -> Process | None:
        kernels = [slot.running for slot in self._world.kernels]
        running = [kernel.process for kernel in kernels if kernel and kernel.process.is_running]
        return self._draws.choice(running) if running else None

    def _kill_worker(self) -> str | None:
        process = self._worker()
        if process is not None:
            process.kill()
        return _name(process)

    def _freeze_worker(self) -> str | None:
        return self._freeze(self._worker())

    def _freeze_kernel(self) -> str | None:
        return self._freeze(self._kernel())

    def _freeze(self, process: Process | None) -> str | None:
        if process is None:
            return None
        process.freeze()
        span_s = self._draws.choice((0.2, 2.0, 4.0, 8.0, 20.0))
        self._world.loop.call_later(span_s, process.thaw)
        return f"{process.name} for {span_s} s"

    def _replace_worker(self) -> str | None:
        """Start a new process of a worker whose old one only seems dead, and wakes later."""
        slot = self._draws.choice(self._world.workers)
        if slot.newest.is_dead:
            return None
        old = slot.newest
        self._freeze(old)
        return f"{old.name} by {self._world.start_worker(slot).name}"

    def _lose_worker(self) -> str | None:
        """Its host goes dark: no stream ends, no dial is refused, and its id never comes back."""
        index = self._draws.randrange(len(self._world.workers))
        lost = self._world.workers[index]
        if not lost.newest.is_running:
            return None
        lost.newest.freeze()
        self._world.workers[index] = slot = WorkerSlot(f"{lost.worker_id}'")
        return f"{lost.newest.name}, {self._world.start_worker(slot).name} instead"

    def _drain_worker(self) -> str | None:
        slot = self._draws.choice(self._world.workers)
        if slot.worker is None or not slot.newest.is_running:
            return None
        slot.newest.run(slot.worker.drain)
        return slot.newest.name

    def _drain_kernel(self) -> str | None:
        kernels = [slot.running for slot in self._world.kernels]
        running = [kernel for kernel in kernels if kernel and kernel.process.is_running]
        if not running:
            return None
        kernel = self._draws.choice(running)
        kernel.drain()
        return kernel.process.name

    def _kill_kernel(self) -> str | None:
        process = self._kernel()
        if process is not None:
            process.kill()
        return _name(process)

    def _kill_projector(self) -> str | None:
        process = self._world.projector
        if process is not None:
            process.kill()
        return _name(process)

    def _usurp(self) -> str | None:
        """Start a second kernel while the first lives: both believe that they own the partition."""
        free = [slot for slot in self._world.kernels if slot.running is None]
        if not free or self._world.store.held_by is None:
            return None
        return self._world.start_kernel(self._draws.choice(free), exclusive=False).process.name

    def _break_streams(self) -> str | None:
        processes = self._processes()
        if not processes:
            return None
        process = self._draws.choice(processes)
        return f"{self._world.network.break_streams(process)} of {process.name}"

    def _part_hosts(self) -> str | None:
        kernel = self._draws.choice(self._world.kernels).address
        others = [slot.worker_id for slot in self._world.workers]
        others += [f"client-{number}" for number in range(self._world.scale.client_count)]
        other = self._draws.choice(others)
        self._world.network.part(kernel, other)
        span_s = self._draws.choice((0.5, 5.0, 15.0))
        self._world.loop.call_later(span_s, self._world.network.heal)
        return f"{kernel} and {other} for {span_s} s at most"

    def _step_wall(self) -> str | None:
        slot = self._draws.choice(self._world.kernels)
        by_ms = self._draws.randint(-WALL_STEP_MS_MAX, WALL_STEP_MS_MAX)
        slot.clock.step_wall(by_ms * NS_PER_MS)
        return f"{slot.address} by {by_ms} ms"


def _name(process: Process | None) -> str | None:
    return None if process is None else process.name
