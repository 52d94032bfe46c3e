"""The group writer's rules: linger, caps, room and what each failure means, one case each."""

from __future__ import annotations

from collections.abc import Callable

from stretto_core.eventlog.port import SettledAs, Settlement
from stretto_core.eventlog.writer import (
    Append,
    Closed,
    Probe,
    Settle,
    Wait,
    WriterLimits,
    WriterMachine,
)

from tests.model.eventlog.writer_model import event


def test_several_batches_linger_for_company_and_one_alone_does_not() -> None:
    machine = WriterMachine(WriterLimits(linger_ns=10))
    machine.submit([event(1, 0)], now_ns=100)
    assert isinstance(machine.tick(100), Append)
    machine.submit([event(2, 0)], now_ns=103)
    machine.submit([event(3, 0)], now_ns=104)
    machine.appended((1,))
    assert machine.tick(105) == Wait(113)
    step = machine.tick(113)
    assert isinstance(step, Append) and len(step.events) == 2


def test_what_comes_together_while_nothing_is_under_way_goes_at_once() -> None:
    machine = WriterMachine(WriterLimits(linger_ns=10))
    machine.submit([event(1, 0)], now_ns=100)
    machine.submit([event(2, 0)], now_ns=101)
    step = machine.tick(101)
    assert isinstance(step, Append) and len(step.events) == 2
    machine.appended((1, 2))
    machine.submit([event(3, 0)], now_ns=105)
    machine.submit([event(4, 0)], now_ns=105)
    assert isinstance(machine.tick(105), Append), "no matter what was under way before"


def test_a_large_group_a_barrier_or_a_drain_ends_the_linger() -> None:
    enders: list[Callable[[WriterMachine], object]] = [
        lambda machine: machine.submit([event(3, index) for index in range(98)], now_ns=0),
        lambda machine: machine.want_barrier(),
        lambda machine: machine.drain(),
    ]
    for end_linger in enders:
        machine = WriterMachine(WriterLimits(linger_ns=10, linger_events_max=100))
        machine.submit([event(0, 0)], now_ns=0)
        assert isinstance(machine.tick(0), Append)
        machine.submit([event(1, 0)], now_ns=0)
        machine.submit([event(2, 0)], now_ns=0)
        machine.appended((1,))
        assert machine.tick(0) == Wait(10)
        end_linger(machine)
        assert isinstance(machine.tick(0), Append)


def test_bytes_limit_a_group_too() -> None:
    machine = WriterMachine(WriterLimits(group_bytes_max=2))
    for batch in range(1, 6):
        machine.submit([event(batch, 0)], now_ns=0)
    step = machine.tick(machine_far_future := 1_000_000_000)
    assert isinstance(step, Append) and len(step.events) == 2
    machine.appended((1, 2))
    assert isinstance(machine.tick(machine_far_future), Append)


def test_a_group_stored_in_part_closes_without_a_word_on_its_batches() -> None:
    machine = WriterMachine(WriterLimits())
    machine.submit([event(1, 0), event(1, 1)], now_ns=0)
    machine.tick(0)
    machine.lost()
    assert isinstance(machine.tick(0), Settle)
    (closed,) = machine.settled(Settlement(SettledAs.MIXED))
    assert isinstance(closed, Closed) and closed.cause.reason_word == "INTERNAL"


def test_it_has_no_room_beyond_its_limit() -> None:
    machine = WriterMachine(WriterLimits(pending_events_max=2))
    machine.submit([event(1, 0)], now_ns=0)
    assert machine.has_room
    machine.submit([event(2, 0)], now_ns=0)
    assert not machine.has_room


def test_one_probe_serves_all_barriers_asked_before_it() -> None:
    machine = WriterMachine(WriterLimits())
    first, second = machine.want_barrier(), machine.want_barrier()
    assert first == second
    assert isinstance(machine.tick(0), Probe)
    assert machine.want_barrier() > first
