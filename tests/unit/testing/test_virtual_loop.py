"""The event loop on virtual time: order, time, deadlock, and what it refuses."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from stretto_core.testing.process import Process
from stretto_core.testing.seeded import random_for
from stretto_core.testing.virtual_clock import VirtualClock
from stretto_core.testing.virtual_loop import (
    Deadlock,
    ForbiddenInSimulation,
    Livelock,
    VirtualLoop,
)

HOUR_S = 3_600.0


def run(main: Callable[[VirtualLoop], Coroutine[Any, Any, Any]], seed: int = 1) -> Any:
    loop = VirtualLoop(random_for(seed, "order"))
    return loop.run(main(loop))


def test_an_hour_passes_at_once() -> None:
    async def main(loop: VirtualLoop) -> float:
        before = loop.time()
        await asyncio.sleep(HOUR_S)
        return loop.time() - before

    assert run(main) == pytest.approx(HOUR_S)


def test_timers_fall_due_in_order_of_time_and_time_never_overtakes_them() -> None:
    async def main(loop: VirtualLoop) -> list[tuple[str, float]]:
        start = loop.time()
        seen: list[tuple[str, float]] = []

        def note(name: str) -> None:
            seen.append((name, round(loop.time() - start, 6)))

        for name, delay_s in (("late", 3.0), ("early", 1.0), ("middle", 2.0)):
            loop.call_later(delay_s, note, name)
        await asyncio.sleep(5)
        return seen

    assert run(main) == [("early", 1.0), ("middle", 2.0), ("late", 3.0)]


def orders(seed: int) -> list[int]:
    async def main(_: VirtualLoop) -> list[int]:
        seen: list[int] = []

        async def one(number: int) -> None:
            for _ in range(3):
                await asyncio.sleep(0)
            seen.append(number)

        await asyncio.gather(*(one(number) for number in range(8)))
        return seen

    result = run(main, seed)
    assert isinstance(result, list)
    return result


def test_the_seed_decides_the_order_of_what_is_ready_together() -> None:
    assert orders(1) == orders(1)
    assert len({tuple(orders(seed)) for seed in range(5)}) > 1


def test_sets_of_tasks_iterate_alike_every_time() -> None:
    async def main(_: VirtualLoop) -> list[str]:
        tasks = {asyncio.create_task(asyncio.sleep(1), name=f"t{number}") for number in range(20)}
        names = [task.get_name() for task in tasks]
        await asyncio.gather(*tasks)
        return names

    assert run(main) == run(main)


def test_a_deadlock_is_told_with_who_waits_where() -> None:
    async def wait_for_ever() -> None:
        await asyncio.Event().wait()

    async def main(_: VirtualLoop) -> None:
        await asyncio.create_task(wait_for_ever(), name="the-stuck-one")

    with pytest.raises(Deadlock, match=r"the-stuck-one: .*wait"):
        run(main)


def test_a_livelock_is_told() -> None:
    async def main(loop: VirtualLoop) -> None:
        def again() -> None:
            loop.call_soon(again)

        loop.call_soon(again)
        await asyncio.Event().wait()

    with pytest.raises(Livelock):
        run(main)


def test_threads_and_sockets_are_refused() -> None:
    async def main(loop: VirtualLoop) -> None:
        with pytest.raises(ForbiddenInSimulation):
            await asyncio.to_thread(print)
        with pytest.raises(ForbiddenInSimulation):
            await loop.getaddrinfo("localhost", 80)

    run(main)


def test_a_failing_callback_is_kept() -> None:
    loop = VirtualLoop(random_for(1, "order"))

    async def main() -> None:
        loop.call_soon(lambda: 1 / 0)
        await asyncio.sleep(1)

    loop.run(main())
    assert [type(failure["exception"]) for failure in loop.failures] == [ZeroDivisionError]


def test_a_killed_process_runs_nothing_any_more_not_even_its_finally() -> None:
    async def main(loop: VirtualLoop) -> list[str]:
        seen: list[str] = []
        process = Process(loop, "victim")

        async def child() -> None:
            try:
                await asyncio.sleep(10)
            finally:
                seen.append("finally")

        async def work() -> None:
            async with asyncio.TaskGroup() as group:
                group.create_task(child())
                seen.append("started")

        process.when_dead(lambda: seen.append("told"))
        process.spawn(work())
        await asyncio.sleep(1)
        process.kill()
        process.kill()
        await asyncio.sleep(20)
        return list(seen)

    assert run(main) == ["started", "told"]


def test_a_woken_process_finds_what_fell_due_while_it_was_stopped() -> None:
    async def main(loop: VirtualLoop) -> list[float]:
        start, seen = loop.time(), []
        process = Process(loop, "zombie")

        async def work() -> None:
            for _ in range(3):
                await asyncio.sleep(1)
                seen.append(loop.time() - start)

        process.spawn(work())
        await asyncio.sleep(1.5)
        process.freeze()
        await asyncio.sleep(10)
        assert len(seen) == 1, "nothing runs while it is stopped"
        process.thaw()
        await asyncio.sleep(10)
        return seen

    assert run(main) == pytest.approx([1.0, 11.5, 12.5])


def test_a_cancelled_timer_of_a_stopped_process_stays_cancelled() -> None:
    async def main(loop: VirtualLoop) -> list[str]:
        seen: list[str] = []
        process = Process(loop, "zombie")
        timers: list[asyncio.TimerHandle] = []
        process.run(lambda: timers.append(loop.call_later(1, seen.append, "due")))
        process.freeze()
        await asyncio.sleep(2)
        timers[0].cancel()
        process.thaw()
        await asyncio.sleep(1)
        return seen

    assert run(main) == []


def test_a_wall_step_moves_wall_time_only() -> None:
    async def main(loop: VirtualLoop) -> tuple[int, int]:
        clock = VirtualClock(loop)
        wall_ns, mono_ns = clock.now_ns(), clock.mono_ns()
        clock.step_wall(-5_000_000_000)
        await asyncio.sleep(1)
        return clock.now_ns() - wall_ns, clock.mono_ns() - mono_ns

    assert run(main) == (-4_000_000_000, 1_000_000_000)
