"""The heap of due instants, and the durable timers over it."""

from __future__ import annotations

import asyncio
import random

import pytest
from stretto_core.clock.system import SystemClock
from stretto_core.ids import RunId, TaskName
from stretto_kernel.domain.run.commands import AttemptTimeout, QueueTimeout, RunTimeout
from stretto_kernel.domain.run.queries import Due
from stretto_kernel.timers import durable
from stretto_kernel.timers.alarm import Alarm
from stretto_kernel.timers.durable import RUN_ITSELF, DurableTimers
from stretto_kernel.timers.heap import TimerHeap

from tests.waiting import until

RUN, OTHER = RunId("p0-run"), RunId("p0-other")
A, B = TaskName("a"), TaskName("b")


def test_keys_come_out_when_due_earliest_first() -> None:
    heap: TimerHeap[str, int] = TimerHeap()
    for key, due in (("c", 30), ("a", 10), ("b", 20)):
        heap.arm(key, due, due)
    assert heap.next_due() == 10
    assert heap.take_due(20, 10) == [("a", 10), ("b", 20)]
    assert heap.take_due(20, 10) == []
    assert len(heap) == 1


def test_a_key_armed_again_has_its_newest_instant_and_stamp_only() -> None:
    heap: TimerHeap[str, int] = TimerHeap()
    heap.arm("a", 10, 1)
    heap.arm("a", 30, 2)
    assert heap.take_due(20, 10) == []
    heap.arm("a", 30, 3)
    assert heap.take_due(30, 10) == [("a", 3)]
    assert heap.next_due() is None


def test_a_disarmed_key_never_comes_and_the_limit_holds() -> None:
    heap: TimerHeap[int, None] = TimerHeap()
    for key in range(10):
        heap.arm(key, key, None)
    heap.disarm(0)
    heap.disarm(99)
    assert [key for key, _ in heap.take_due(100, 3)] == [1, 2, 3]


def test_arming_again_and_again_does_not_grow_the_heap() -> None:
    heap: TimerHeap[int, None] = TimerHeap()
    for instant in range(100_000):
        heap.arm(instant % 7, instant, None)
    assert len(heap._heap) < 5_000, "replaced entries are dropped"
    assert len(heap) == 7


def test_the_heap_agrees_with_a_sorted_list() -> None:
    chance = random.Random(7)
    heap: TimerHeap[int, int] = TimerHeap()
    expected: dict[int, int] = {}
    for step in range(5_000):
        key = chance.randrange(50)
        if chance.random() < 0.2:
            heap.disarm(key)
            expected.pop(key, None)
        elif chance.random() < 0.1:
            now = step + chance.randrange(50)
            due = {key for key, instant in expected.items() if instant <= now}
            assert {key for key, _ in heap.take_due(now, 1_000)} == due
            for key in due:
                del expected[key]
        else:
            expected[key] = step + chance.randrange(100)
            heap.arm(key, expected[key], step)
        assert heap.next_due() == min(expected.values(), default=None)


def test_timers_of_a_task_replace_each_other() -> None:
    timers = DurableTimers()
    queue, attempt = QueueTimeout(A, 0), AttemptTimeout(A, 1)
    timers.arm(RUN, A, [Due(at_ns=10, timer=queue)])
    timers.arm(RUN, B, [Due(at_ns=15, timer=QueueTimeout(B, 0))])
    timers.arm(RUN, RUN_ITSELF, [Due(at_ns=40, timer=RunTimeout())])
    timers.arm(RUN, A, [Due(at_ns=20, timer=attempt)])
    assert timers.take_due(30, 10) == [(RUN, QueueTimeout(B, 0)), (RUN, attempt)]
    assert timers.next_due_ns() == 40


def test_a_forgotten_run_has_no_timer() -> None:
    timers = DurableTimers()
    timers.arm(RUN, RUN_ITSELF, [Due(at_ns=40, timer=RunTimeout())])
    timers.arm(RUN, A, [Due(at_ns=10, timer=QueueTimeout(A, 0))])
    timers.forget_run(RUN)
    assert timers.next_due_ns() is None and len(timers) == 0
    timers.arm(RUN, A, [])
    assert timers.take_due(100, 10) == []


def test_a_large_run_is_forgotten_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing costs its number of timers at once: not the forgetting, and not what comes after."""
    monkeypatch.setattr(durable, "FREED_PER_LOOK", 10)
    timers, count = DurableTimers(), 95
    for number in range(count):
        name = TaskName(f"t{number}")
        timers.arm(RUN, name, [Due(at_ns=number, timer=QueueTimeout(name, 0))])
    timers.arm(OTHER, A, [Due(at_ns=200, timer=QueueTimeout(A, 0))])
    [(_, run)] = [each for each in timers._runs.items() if each[0] == RUN]
    timers.forget_run(RUN)
    assert len(timers) == 1 and len(run.by_task) == count
    for looks in range(1, 10):
        assert timers.next_due_ns() == 200
        assert (len(run.by_task), len(run.heap)) == (count - 10 * looks, count - 10 * looks)
    assert timers.next_due_ns() == 200 and not timers._forgotten


async def test_an_alarm_rings_again_after_a_ring_that_failed() -> None:
    dues, rings = [0, 1], []

    def ring(late_ns: int) -> None:
        rings.append(dues.pop(0))
        if len(rings) == 1:
            raise ValueError("planned")

    loop = asyncio.get_running_loop()
    failures: list[object] = []
    loop.set_exception_handler(lambda _, context: failures.append(context["exception"]))
    alarm = Alarm(SystemClock(), ring, lambda: dues[0] if dues else None)
    alarm.start()
    await until(lambda: len(rings) == 2)
    alarm.stop()
    assert len(failures) == 1
