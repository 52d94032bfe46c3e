"""Limits of queues that change while work stands in them: never exceeded, and nothing is stuck."""

from __future__ import annotations

import random
from typing import Any

import pytest
from stretto_core.clock import NS_PER_S
from stretto_core.ids import RunId, TaskName
from stretto_kernel.dispatch.queue_gates import Shut
from stretto_kernel.dispatch.rate_limiter import RateLimiter
from stretto_kernel.dispatch.ready_queues import ReadyQueues
from stretto_kernel.domain.queue import Pause, QueueSettings, RateLimit

from tests.unit.kernel.test_ready_queues import item, session

RUN = RunId("r")


def heeding(now_ns: int = 0, **settings: Any) -> ReadyQueues:
    queues = ReadyQueues()
    queues.heed({"default": QueueSettings(**settings)}, now_ns)
    return queues


def change(queues: ReadyQueues, now_ns: int = 0, **settings: Any) -> None:
    queues.heed({"default": QueueSettings(**settings)}, now_ns)


def granted(queues: ReadyQueues, now_ns: int = 0) -> list[str]:
    found: list[str] = []
    while (grant := queues.next_grant(now_ns)) is not None:
        found.append(grant.item.task)
    return found


def offer_items(queues: ReadyQueues, count: int) -> None:
    for number in range(count):
        queues.offer_item(item(str(number), ready_ns=number))


def test_nothing_is_granted_before_the_settings_are_known() -> None:
    queues = ReadyQueues()
    session(queues, 1, 5)
    offer_items(queues, 1)
    assert granted(queues) == []
    queues.heed({}, 0)
    assert granted(queues) == ["0"]
    queues.void_settings()
    queues.offer_item(item("later"))
    assert granted(queues) == []
    queues.heed({}, 0)
    assert granted(queues) == ["later"]


def test_a_limit_lowered_below_what_runs_revokes_nothing_and_grants_nothing_until_below() -> None:
    queues = heeding(concurrency_limit=3)
    session(queues, 1, 10)
    offer_items(queues, 5)
    assert granted(queues) == ["0", "1", "2"]
    change(queues, concurrency_limit=1)
    for task in ("0", "1"):
        queues.withdraw_item(RUN, TaskName(task))
        assert granted(queues) == []
    assert queues.gates.leased_count("default") == 1
    queues.withdraw_item(RUN, TaskName("2"))
    assert granted(queues) == ["3"]
    change(queues)
    assert granted(queues) == ["4"]


def test_a_limit_set_while_tasks_run_counts_them() -> None:
    queues = heeding()
    session(queues, 1, 10)
    offer_items(queues, 2)
    assert granted(queues) == ["0", "1"]
    change(queues, concurrency_limit=2)
    queues.offer_item(item("third"))
    assert granted(queues) == []


def test_a_limit_set_while_a_run_is_not_folded_waits_for_it() -> None:
    queues = heeding()
    session(queues, 1, 10)
    queues.gates.block_limited(RunId("unfolded"))
    queues.gates.block(["default"], RunId("named"))
    offer_items(queues, 1)
    change(queues, concurrency_limit=2)
    assert granted(queues) == []
    queues.note_leased(RunId("unfolded"), TaskName("x"), "default")
    queues.gates.unblock(RunId("unfolded"))
    assert granted(queues) == []
    queues.gates.unblock(RunId("named"))
    assert granted(queues) == ["0"]


def test_a_paused_queue_grants_nothing_until_it_is_resumed() -> None:
    queues = heeding(pause=Pause("for repair"))
    session(queues, 1, 10)
    offer_items(queues, 2)
    queues.offer_item(item("other", queue="default"))
    assert granted(queues) == []
    assert queues.gates.shut("default", 0) is Shut.PAUSED
    change(queues)
    assert len(granted(queues)) == 3


def test_a_rate_begins_empty_and_gives_a_burst_after_a_rest() -> None:
    queues = heeding(rate_limit=RateLimit(10.0, 2))
    session(queues, 1, 100)
    offer_items(queues, 8)
    assert granted(queues) == []
    tick_ns = NS_PER_S // 10
    assert queues.gates.next_due_ns() == tick_ns
    assert granted(queues, tick_ns - 1) == []
    assert granted(queues, tick_ns) == ["0"]
    assert granted(queues, 2 * tick_ns) == ["1"]
    assert granted(queues, 90 * tick_ns) == ["2", "3"]
    assert queues.gates.next_due_ns() == 91 * tick_ns
    queues.gates.give_back_token("default")
    change(queues, 90 * tick_ns, rate_limit=RateLimit(10.0, 2))
    assert granted(queues, 90 * tick_ns) == ["4"], "a token taken for nothing came back"


def test_a_rate_that_changes_brings_no_tokens() -> None:
    limiter = RateLimiter(RateLimit(1.0, 5), 0)
    assert limiter.token_count(3 * NS_PER_S) == 3
    for rate, burst, kept in ((2.0, 10, 3), (0.5, 2, 2), (1000.0, 9, 2)):
        limiter = RateLimiter(RateLimit(rate, burst), 3 * NS_PER_S, limiter)
        assert limiter.token_count(3 * NS_PER_S) == kept


def test_what_waits_and_runs_is_counted_and_a_queue_without_both_is_forgotten() -> None:
    queues = heeding()
    session(queues, 1, 1)
    offer_items(queues, 3)
    assert granted(queues) == ["0"]
    gates = queues.gates
    assert (gates.ready_count("default"), gates.leased_count("default")) == (2, 1)
    assert queues.oldest_ready_ns("default") == 1
    queues.forget_run(RUN)
    assert gates.names() == []
    assert queues.oldest_ready_ns("default") is None


@pytest.mark.parametrize("seed", range(8))
def test_no_limit_is_exceeded_whatever_changes(seed: int) -> None:
    """Random hands against plain counting: limit, pause and rate as they are at each grant."""
    chance = random.Random(seed)
    queues = heeding()
    session(queues, 1, 10**6)
    settings, rate_since_ns, taken = QueueSettings(), 0, 0
    ready, leased, now_ns = set[str](), set[str](), 0
    for step in range(2_000):
        now_ns += chance.randrange(NS_PER_S // 5)
        match chance.randrange(6):
            case 0 | 1:
                ready.add(str(step))
                queues.offer_item(item(str(step)))
            case 2 if leased:
                task = leased.pop()
                queues.withdraw_item(RUN, TaskName(task))
            case 3 if ready and chance.random() < 0.3:
                queues.withdraw_item(RUN, TaskName(ready.pop()))
            case 4 if chance.random() < 0.2:
                rate = chance.choice([None, RateLimit(3.0, 1), RateLimit(5.0, 4)])
                if rate != settings.rate_limit:
                    rate_since_ns, taken = now_ns, -5  # At most a burst was kept.
                settings = QueueSettings(
                    concurrency_limit=chance.choice([None, 1, 2, 5]),
                    pause=chance.choice([None, None, Pause("")]),
                    rate_limit=rate,
                )
                queues.heed({"default": settings}, now_ns)
        while (grant := queues.next_grant(now_ns)) is not None:
            ready.remove(grant.item.task)
            leased.add(grant.item.task)
            assert settings.pause is None
            assert settings.concurrency_limit is None or len(leased) <= settings.concurrency_limit
            if (limit := settings.rate_limit) is not None:
                taken += 1
                most = limit.burst + limit.tokens_per_second * (now_ns - rate_since_ns) / NS_PER_S
                assert taken <= most
        assert queues.gates.ready_count("default") == len(ready)
        assert queues.gates.leased_count("default") == len(leased)
        free = settings.concurrency_limit is None or len(leased) < settings.concurrency_limit
        if settings.pause is None and settings.rate_limit is None and free:
            assert not ready, "what may go goes"
    change(queues, now_ns)
    assert set(granted(queues, now_ns)) == ready
