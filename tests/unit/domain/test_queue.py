"""The settings of queues: which facts an update makes true, and what they fold to."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as some
from stretto.queue.v1 import events_pb2 as ev
from stretto.queue.v1 import queue_pb2
from stretto_core.eventlog.recorded import Recorded
from stretto_core.ids import RequestId
from stretto_kernel.domain.queue import (
    EVENTS,
    Change,
    Pause,
    QueueSettings,
    QueuesState,
    RateLimit,
    UpdateQueue,
    decide,
    evolve,
)
from stretto_kernel.domain.queue.decide import QUEUES_MAX, QueueLimit
from stretto_kernel.domain.requests import RequestIdReused
from stretto_kernel.domain.revisions import RevisionMismatch

RATE = RateLimit(2.5, 3)


def update(request_id: str = "r", **fields: Any) -> UpdateQueue:
    given = {"now_ns": 10, "queue": "gpu", "request_digest": b"d" * 32, **fields}
    return UpdateQueue(request_id=RequestId(request_id), **given)


def apply(state: QueuesState, command: UpdateQueue) -> tuple[Message, ...]:
    facts = decide(state, command)
    for fact in facts:
        evolve(
            state,
            Recorded(
                fact,
                state.version + 1,
                command.now_ns,
                command.request_id,
                command.request_digest,
            ),
        )
    return facts


def test_each_setting_that_changes_is_one_fact() -> None:
    state = QueuesState({})
    facts = apply(
        state,
        update(concurrency_limit=Change(4), rate_limit=Change(RATE), pause=Change(Pause("repair"))),
    )
    assert facts == (
        ev.ConcurrencyLimitChanged(queue="gpu", limit=4),
        ev.RateLimitChanged(queue="gpu", limit=queue_pb2.RateLimit(tokens_per_second=2.5, burst=3)),
        ev.QueuePaused(queue="gpu", reason="repair"),
    )
    assert state.of("gpu") == QueueSettings(
        concurrency_limit=4,
        rate_limit=RATE,
        pause=Pause("repair"),
        limit_stated=True,
        version=3,
        changed_ns=10,
    )
    assert list(state.changed) == ["gpu"]
    facts = apply(
        state,
        update("s", concurrency_limit=Change(None), rate_limit=Change(None), pause=Change(None)),
    )
    assert facts == (
        ev.ConcurrencyLimitChanged(queue="gpu"),
        ev.RateLimitChanged(queue="gpu"),
        ev.QueueResumed(queue="gpu"),
    )
    assert state.of("gpu") == QueueSettings(limit_stated=True, version=6, changed_ns=10)


@pytest.mark.parametrize(
    "same",
    [
        {"concurrency_limit": Change(4)},
        {"rate_limit": Change(RATE)},
        {"pause": Change(Pause("x"))},
        {},
    ],
)
def test_what_is_so_already_is_no_fact(same: dict[str, Any]) -> None:
    state = QueuesState({})
    apply(state, update(**same))
    assert decide(state, update("again", **same)) == ()


def test_another_reason_for_a_pause_is_a_fact() -> None:
    state = QueuesState({})
    apply(state, update(pause=Change(Pause("x"))))
    facts = decide(state, update("s", pause=Change(Pause("y"))))
    assert facts == (ev.QueuePaused(queue="gpu", reason="y"),)


def test_the_default_holds_until_a_fact_says_otherwise() -> None:
    state = QueuesState({"gpu": 2})
    assert state.of("gpu").concurrency_limit == 2
    apply(state, update(pause=Change(Pause(""))))
    assert state.of("gpu").concurrency_limit == 2
    assert decide(state, update("s", concurrency_limit=Change(2))), "now it is said for ever"
    apply(state, update("s", concurrency_limit=Change(None)))
    assert state.of("gpu").concurrency_limit is None


def test_settings_that_changed_since_are_not_overwritten() -> None:
    state = QueuesState({})
    apply(state, update(concurrency_limit=Change(1), etag="0"))
    with pytest.raises(RevisionMismatch) as refused:
        decide(state, update("s", concurrency_limit=Change(2), etag="0"))
    assert refused.value.metadata["etag"] == "1"
    assert refused.value.retry_delay_ms is None
    assert decide(state, update("s", concurrency_limit=Change(2), etag="1"))


def test_a_repeated_request_changes_nothing_and_another_one_is_refused() -> None:
    state = QueuesState({})
    apply(state, update(concurrency_limit=Change(1)))
    apply(state, update("s", concurrency_limit=Change(2)))
    assert decide(state, update(concurrency_limit=Change(1))) == ()
    with pytest.raises(RequestIdReused):
        decide(state, update(concurrency_limit=Change(3), request_digest=b"e" * 32))


def test_only_so_many_queues_have_settings() -> None:
    state = QueuesState({str(number): 1 for number in range(QUEUES_MAX)})
    with pytest.raises(QueueLimit):
        decide(state, update(concurrency_limit=Change(1)))
    assert decide(state, update(queue="0", concurrency_limit=Change(None)))


def test_every_event_of_the_contract_is_folded() -> None:
    said = set(ev.DESCRIPTOR.message_types_by_name)
    assert {event.DESCRIPTOR.name for event in EVENTS} == said


CHANGES = some.fixed_dictionaries(
    {},
    optional={
        "concurrency_limit": some.builds(Change, some.none() | some.integers(1, 3)),
        "rate_limit": some.builds(Change, some.none() | some.just(RATE)),
        "pause": some.builds(Change, some.none() | some.builds(Pause, some.sampled_from("ab"))),
    },
)


@given(some.lists(some.tuples(some.sampled_from(["gpu", "mail"]), CHANGES), max_size=20))
def test_any_updates_leave_what_was_asked_for_and_fold_again_to_it(
    updates: list[tuple[str, dict[str, Change[Any]]]],
) -> None:
    defaults = {"mail": 7}
    state, log = QueuesState(defaults), list[Recorded[Any]]()
    asked: dict[str, dict[str, Any]] = {
        "gpu": {"concurrency_limit": None},
        "mail": {"concurrency_limit": 7},
    }
    for number, (queue, changes) in enumerate(updates):
        facts = apply(state, update(str(number), queue=queue, **changes))
        log += [
            Recorded(fact, len(log) + index, 10, str(number), b"d" * 32)
            for index, fact in enumerate(facts, start=1)
        ]
        asked[queue] |= {name: change.value for name, change in changes.items()}
        for name, values in asked.items():
            settings = state.of(name)
            assert all(getattr(settings, key) == value for key, value in values.items())
        assert decide(state, update(f"again {number}", queue=queue, **changes)) == ()
    folded = QueuesState(defaults)
    for recorded in log:
        evolve(folded, recorded)
    assert folded.settings == state.settings
    assert folded.requests == state.requests
