"""How long a follower rests: by its work, never too long, never while more is waiting."""

from __future__ import annotations

from stretto_core.eventlog.duty_cycle import DutyCycle

CYCLE = DutyCycle(rest_per_work=9.0, rest_s_max=0.1, full_events=500)


def test_a_follower_rests_in_proportion_to_its_work() -> None:
    assert CYCLE.rest_s(0.002, 1) == 9 * 0.002
    assert CYCLE.rest_s(0.002, 499) == 9 * 0.002
    assert CYCLE.rest_s(0.0, 1) == 0.0


def test_no_rest_is_longer_than_the_longest() -> None:
    assert CYCLE.rest_s(5.0, 499) == 0.1


def test_who_is_behind_does_not_rest() -> None:
    assert CYCLE.rest_s(0.002, 500) == 0.0
    assert CYCLE.rest_s(0.002, 501) == 0.0


def test_under_a_steady_load_batches_grow_until_their_fixed_cost_is_a_tenth_at_most() -> None:
    fixed_s, of_event_s, events_per_s = 0.003, 0.000_1, 2_000
    count, batches, now_s = 1, 0, 0.0
    while now_s < 10.0:
        worked_s = fixed_s + count * of_event_s
        passed_s = worked_s + CYCLE.rest_s(worked_s, count)
        count = max(1, round(passed_s * events_per_s))
        now_s, batches = now_s + passed_s, batches + 1
    assert batches * fixed_s <= 10.0 * 0.1, "the share of one processor that batches cost"
    assert count < CYCLE.full_events
