"""Which ready item goes to which session: order, labels, limits, holds."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest
from stretto_core.ids import RunId, TaskName
from stretto_kernel.dispatch import ready_bucket
from stretto_kernel.dispatch.fair_share import FairShare
from stretto_kernel.dispatch.queue_gates import Shut
from stretto_kernel.dispatch.ready_bucket import Bucket, ReadyItem
from stretto_kernel.dispatch.ready_queues import OfferKey, ReadyQueues
from stretto_kernel.domain.queue import QueueSettings

ANY = OfferKey(frozenset({"default"}), frozenset({"test"}), frozenset())


def item(task: str, run: str = "r", **fields: Any) -> ReadyItem:
    given = {"queue": "default", "executor": "test", "priority": 0, "ready_ns": 0, **fields}
    return ReadyItem(run_id=RunId(run), task=TaskName(task), **given)


def offer(
    *, queues: str = "default", executors: str = "test", labels: dict[str, str] | None = None
) -> OfferKey:
    return OfferKey(
        frozenset(queues.split()), frozenset(executors.split()), frozenset((labels or {}).items())
    )


def session(queues: ReadyQueues, key: int, free: int, offered: OfferKey = ANY) -> None:
    queues.add_session(key, offered)
    queues.set_credits(key, free)


def limited(limits: dict[str, int]) -> ReadyQueues:
    queues = ReadyQueues()
    settings = {name: QueueSettings(concurrency_limit=limit) for name, limit in limits.items()}
    queues.heed(settings, 0)
    return queues


def granted(queues: ReadyQueues) -> list[tuple[str, int]]:
    found: list[tuple[str, int]] = []
    while (grant := queues.next_grant(0)) is not None:
        found.append((grant.item.task, grant.session))
    return found


def test_priority_then_age_then_arrival() -> None:
    queues = limited({})
    queues.offer_item(item("late", ready_ns=9))
    queues.offer_item(item("old", ready_ns=1))
    queues.offer_item(item("urgent", ready_ns=99, priority=5))
    queues.offer_item(item("old too", ready_ns=1))
    session(queues, 1, 10)
    assert [task for task, _ in granted(queues)] == ["urgent", "old", "old too", "late"]


def test_order_holds_between_the_queues_of_a_session() -> None:
    queues = limited({})
    queues.offer_item(item("b", queue="two", ready_ns=2))
    queues.offer_item(item("a", queue="one", ready_ns=1))
    queues.offer_item(item("c", queue="one", ready_ns=3))
    session(queues, 1, 10, offer(queues="one two"))
    assert [task for task, _ in granted(queues)] == ["a", "b", "c"]


def test_no_more_is_granted_than_credits() -> None:
    queues = limited({})
    for number in range(5):
        queues.offer_item(item(str(number), ready_ns=number))
    session(queues, 1, 2)
    assert len(granted(queues)) == 2
    queues.set_credits(1, 1)
    assert granted(queues) == [("2", 1)]


def test_sessions_take_turns() -> None:
    queues = limited({})
    for key in (1, 2):
        session(queues, key, 5)
    for number in range(6):
        queues.offer_item(item(str(number)))
    assert Counter(key for _, key in granted(queues)) == {1: 3, 2: 3}


@pytest.mark.parametrize(
    ("needs", "serves"),
    [
        ({"queue": "other"}, False),
        ({"executor": "other"}, False),
        ({"required": frozenset({("gpu", "yes")})}, False),
        ({"required": frozenset({("zone", "a")})}, True),
        ({}, True),
    ],
)
def test_an_item_goes_only_where_all_it_needs_is_offered(
    needs: dict[str, Any], serves: bool
) -> None:
    queues = limited({})
    session(queues, 1, 1, offer(labels={"zone": "a", "size": "big"}))
    queues.offer_item(item("a", **needs))
    assert bool(granted(queues)) is serves
    assert queues.waits_for_worker(item("a", **needs)) is not serves


def test_preferred_labels_break_ties() -> None:
    queues = limited({})
    session(queues, 1, 5, offer(labels={"zone": "a"}))
    session(queues, 2, 5, offer(labels={"zone": "b"}))
    near_b = frozenset({("zone", "b")})
    for number in range(3):
        queues.offer_item(item(str(number), preferred=near_b))
    assert {key for _, key in granted(queues)} == {2}
    queues.set_credits(2, 0)
    queues.offer_item(item("3", preferred=near_b))
    assert granted(queues) == [("3", 1)], "a preference never keeps work waiting"


def test_a_limit_is_held_and_its_slots_come_back() -> None:
    queues = limited({"narrow": 2})
    for number in range(5):
        queues.offer_item(item(str(number), queue="narrow", ready_ns=number))
    queues.offer_item(item("free", ready_ns=99))
    session(queues, 1, 10, offer(queues="narrow default"))
    assert [task for task, _ in granted(queues)] == ["0", "free", "1"], "queues take turns"
    assert queues.gates.shut("narrow", 0) is Shut.LIMIT
    assert queues.gates.shut("default", 0) is None
    queues.withdraw_item(RunId("r"), TaskName("0"))
    assert [task for task, _ in granted(queues)] == ["2"]
    queues.forget_run(RunId("r"))
    queues.offer_item(item("x", run="other", queue="narrow"))
    assert [task for task, _ in granted(queues)] == ["x"]
    assert queues.gates.leased_count("narrow") == 1


def test_a_limited_queue_waits_for_runs_not_folded() -> None:
    queues = limited({"narrow": 2})
    session(queues, 1, 10, offer(queues="narrow default"))
    queues.gates.block(["narrow", "default"], RunId("unfolded"))
    queues.offer_item(item("a", queue="narrow"))
    queues.offer_item(item("b"))
    assert [task for task, _ in granted(queues)] == ["b"], "a queue without a limit never waits"
    queues.note_leased(RunId("unfolded"), TaskName("x"), "narrow")
    queues.gates.unblock(RunId("unfolded"))
    assert [task for task, _ in granted(queues)] == ["a"]
    assert queues.gates.leased_count("narrow") == 2


def test_a_held_run_is_set_aside_and_comes_back_in_order() -> None:
    queues = limited({})
    queues.hold_run(RunId("held"), held=True)
    for number in range(3):
        queues.offer_item(item(str(number), run="held", ready_ns=number))
    queues.offer_item(item("other", ready_ns=9))
    session(queues, 1, 10)
    assert [task for task, _ in granted(queues)] == ["other"]
    queues.withdraw_item(RunId("held"), TaskName("1"))
    assert queues.hold_run(RunId("held"), held=False)
    assert queues.offer_again(RunId("held"), 2)
    assert not queues.offer_again(RunId("held"), 2)
    assert [task for task, _ in granted(queues)] == ["0", "2"]


def test_what_was_withdrawn_or_forgotten_is_never_granted() -> None:
    queues = limited({})
    queues.offer_item(item("a"))
    queues.offer_item(item("b"))
    queues.offer_item(item("c", run="gone"))
    queues.withdraw_item(RunId("r"), TaskName("a"))
    queues.forget_run(RunId("gone"))
    session(queues, 1, 10)
    assert [task for task, _ in granted(queues)] == ["b"]
    assert queues.ready_count == 0


def test_a_session_that_left_gets_nothing() -> None:
    queues = limited({})
    session(queues, 1, 10)
    session(queues, 2, 10, offer(labels={"x": "y"}))
    queues.remove_session(1)
    queues.remove_session(1)
    queues.set_credits(1, 5)
    queues.offer_item(item("a"))
    assert granted(queues) == [("a", 2)]


def test_the_same_offer_again_changes_nothing() -> None:
    queues = limited({})
    session(queues, 1, 10)
    queues.offer_item(item("a"))
    queues.offer_item(item("a"))
    assert len(granted(queues)) == 1


def test_nothing_is_lost_or_granted_twice_whatever_comes() -> None:
    """Random hands against a plain model: limits, credits and labels hold, and nothing starves."""
    chance = random.Random(11)
    queues = limited({"narrow": 3})
    ready: dict[str, ReadyItem] = {}
    leased: dict[str, ReadyItem] = {}
    free: dict[int, int] = {}
    offers = [offer(queues="default narrow"), offer(queues="narrow"), offer(labels={"l": "1"})]
    for step in range(4_000):
        match chance.randrange(6):
            case 0 | 1:
                queue = chance.choice(["default", "narrow"])
                required = frozenset({("l", "1")}) if chance.random() < 0.2 else frozenset()
                ready[str(step)] = item(
                    str(step), queue=queue, required=required, priority=chance.randrange(3)
                )
                queues.offer_item(ready[str(step)])
            case 2 if leased:
                task = chance.choice(sorted(leased))
                del leased[task]
                queues.withdraw_item(RunId("r"), TaskName(task))
            case 3 if ready:
                task = chance.choice(sorted(ready))
                del ready[task]
                queues.withdraw_item(RunId("r"), TaskName(task))
            case 4:
                session(queues, step, 0, chance.choice(offers))
                free[step] = 0
                while len(free) > 5:
                    gone = min(free)
                    del free[gone]
                    queues.remove_session(gone)
            case 5 if free:
                key = chance.choice(sorted(free))
                free[key] = chance.randrange(4)
                queues.set_credits(key, free[key])
        while (grant := queues.next_grant(0)) is not None:
            task = grant.item.task
            leased[task] = ready.pop(task)
            free[grant.session] -= 1
            assert free[grant.session] >= 0
        assert sum(one.queue == "narrow" for one in leased.values()) <= 3
    queues.add_session(-1, offer(queues="default narrow", labels={"l": "1"}))
    while ready or leased:
        for task in sorted(leased):
            queues.withdraw_item(RunId("r"), TaskName(task))
        leased.clear()
        queues.set_credits(-1, 100)
        while (grant := queues.next_grant(0)) is not None:
            leased[grant.item.task] = ready.pop(grant.item.task)


def test_what_was_taken_away_is_skipped_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ready_bucket, "SKIPPED_MAX", 10)
    queues = limited({})
    for number in range(35):
        queues.offer_item(item(f"gone {number}", run="gone"))
    queues.offer_item(item("there", ready_ns=1))
    queues.forget_run(RunId("gone"))
    session(queues, 1, 5)
    looks = 0
    while (grant := queues.next_grant(0)) is None and queues.looks_on:
        looks += 1
    assert grant is not None and grant.item.task == "there"
    assert looks in (2, 3), "the session's coming was a look as well"
    assert queues.next_grant(0) is None and not queues.looks_on


def test_what_a_hold_keeps_back_is_set_aside_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ready_bucket, "SKIPPED_MAX", 10)
    queues = limited({})
    tasks = [f"held {number}" for number in range(35)]
    for task in tasks:
        queues.offer_item(item(task))
    queues.hold_run(RunId("r"), held=True)
    session(queues, 1, 100)
    while queues.next_grant(0) is None and queues.looks_on:
        pass
    queues.hold_run(RunId("r"), held=False)
    while queues.offer_again(RunId("r"), 10):
        pass
    assert [task for task, _ in granted(queues)] == tasks


@pytest.mark.parametrize("kept_every", [0, 10])
def test_a_line_that_nobody_takes_from_does_not_grow_by_what_is_gone(kept_every: int) -> None:
    there: set[ReadyItem] = set()
    bucket = Bucket(
        ("default", "test", frozenset()),
        FairShare(),
        is_offered=there.__contains__,
        is_there=there.__contains__,
    )
    for number in range(2_000):
        coming = item(str(number), ready_ns=number)
        there.add(coming)
        bucket.push(coming, number)
        if not kept_every or number % kept_every:
            there.discard(coming)
    assert sum(map(len, bucket._lines.values())) <= 2 * len(there) + 2
    assert len(bucket._firsts) <= 2


def test_a_line_that_ran_empty_elsewhere_is_seen_when_it_fills_again() -> None:
    """One of two offers saw a line's head, another took it; the next item is for either."""
    queues = limited({})
    session(queues, 1, 1)
    session(queues, 2, 0, offer(executors="test other"))
    queues.offer_item(item("first"))
    assert granted(queues) == [("first", 1)]
    queues.offer_item(item("second"))
    queues.set_credits(2, 1)
    assert granted(queues) == [("second", 2)]


def test_a_line_that_ran_empty_while_it_was_parked_keeps_its_new_items() -> None:
    queues = limited({"default": 1})
    other = offer(executors="test other")
    session(queues, 1, 1)
    queues.offer_item(item("running"))
    assert granted(queues) == [("running", 1)]
    queues.offer_item(item("waiting"))
    session(queues, 2, 2, other)
    assert granted(queues) == []
    queues.withdraw_item(RunId("r"), TaskName("waiting"))
    queues.withdraw_item(RunId("r"), TaskName("running"))
    queues.offer_item(item("next"))
    queues.offer_item(item("after it"))
    assert granted(queues) == [("next", 2)]
    queues.withdraw_item(RunId("r"), TaskName("next"))
    assert granted(queues) == [("after it", 2)]


def test_keys_take_turns_whoever_has_more() -> None:
    queues = limited({})
    for number in range(6):
        queues.offer_item(item(f"big {number}", fairness_key="big", ready_ns=number))
    for number in range(2):
        queues.offer_item(item(f"small {number}", fairness_key="small", ready_ns=100 + number))
    queues.offer_item(item("urgent", fairness_key="big", priority=1, ready_ns=200))
    session(queues, 1, 20)
    assert [task for task, _ in granted(queues)] == [
        "urgent",
        *("small 0", "big 0", "small 1"),
        *(f"big {number}" for number in range(1, 6)),
    ]


def test_keys_take_turns_across_executors_of_a_queue() -> None:
    queues = limited({})
    for number in range(4):
        queues.offer_item(item(f"big {number}", fairness_key="big", executor="other"))
    queues.offer_item(item("small", fairness_key="small", ready_ns=100))
    session(queues, 1, 2, offer(executors="test other"))
    assert [task for task, _ in granted(queues)] == ["big 0", "small"]


def test_a_key_that_waited_for_nothing_has_saved_up_nothing() -> None:
    queues = limited({})
    session(queues, 1, 100)
    for number in range(40):
        queues.offer_item(item(str(number), fairness_key="busy"))
        assert len(granted(queues)) == 1
    queues.set_credits(1, 0)
    for key in ("busy", "new"):
        for number in range(3):
            queues.offer_item(item(f"{key} {number}", run=key, fairness_key=key))
    queues.set_credits(1, 4)
    assert Counter(task.split()[0] for task, _ in granted(queues)) == {"busy": 2, "new": 2}


def test_a_queue_that_was_at_its_limit_catches_up_a_few_turns_only() -> None:
    queues = limited({"narrow": 1})
    for number in range(100):
        queues.offer_item(item(f"narrow {number}", run=str(number), queue="narrow"))
        queues.offer_item(item(f"wide {number}", run=str(number)))
    session(queues, 1, 60, offer(queues="narrow default"))
    assert Counter(task.split()[0] for task, _ in granted(queues)) == {"narrow": 1, "wide": 59}
    queues.set_credits(1, 1)
    for number in range(18):
        queues.withdraw_item(RunId(str(number)), TaskName(f"narrow {number}"))
        queues.set_credits(1, 1)
        granted(queues)
    assert queues.gates.leased_count("default") > 0


def test_new_keys_without_end_keep_no_older_one_waiting() -> None:
    queues = limited({})
    for number in range(3):
        queues.offer_item(item(f"old {number}", fairness_key="old", ready_ns=number))
    session(queues, 1, 0)
    taken = []
    for number in range(10):
        queues.offer_item(item(f"new {number}", fairness_key=str(number), ready_ns=10 + number))
        queues.set_credits(1, 1)
        taken += [task for task, _ in granted(queues)]
    assert {"old 0", "old 1", "old 2"} <= set(taken)


def test_nothing_is_kept_of_queues_and_keys_without_work() -> None:
    queues = limited({})
    for number in range(5_000):
        name = f"n{number}"
        key = offer(queues=name)
        queues.offer_item(item("t", run=name, queue=name, fairness_key=name))
        session(queues, number, 1, key)
        assert granted(queues) == [("t", number)]
        queues.remove_session(number)
        queues.withdraw_item(RunId(name), TaskName("t"))
    assert not queues.gates.names()
    assert len(queues._share) < 2_000


def test_a_share_is_even_whatever_the_order_of_things() -> None:
    for seed in range(50):
        draws = random.Random(seed)
        share = FairShare()
        flows = [("q", key) for key in "abc"]
        served: Counter[tuple[str, str]] = Counter()
        for flow in flows:
            for _ in range(100):
                share.join(flow)
        for _ in range(draws.randint(3, 250)):
            flow = min(flows, key=share.turn)
            share.serve(flow)
            share.leave(flow)
            served[flow] += 1
        assert max(served.values()) - min(served[flow] for flow in flows) <= 1
