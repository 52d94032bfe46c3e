"""The view `queues` against the folds of the log: of the settings, and of a random run's tasks.

Facts of both streams come in a random order, and are projected in batches of random sizes.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import suppress
from random import Random
from typing import Any

import pytest
from stretto.common.v1.principal_pb2 import Principal
from stretto.run.v1 import events_pb2 as ev
from stretto_core.errors import Refusal
from stretto_core.eventlog.codec import Codec
from stretto_core.eventlog.memory import MemoryLog, MemoryStore
from stretto_core.eventlog.recorded import Recorded
from stretto_core.ids import RequestId, StreamId, TaskName
from stretto_kernel.domain import queue
from stretto_kernel.domain.run import RunEvent, evolve, new_run
from stretto_kernel.domain.run.task import Leased
from stretto_kernel.owned_partition import RUN_CODEC
from stretto_kernel.projections.cohort import Cohort
from stretto_kernel.projections.queues import QUEUES, QueueRow
from stretto_kernel.projections.run_folds import RunFolds
from stretto_kernel.projections.store import Target

from tests.model.hands import Hands
from tests.model.runs import NAMESPACE, RUN_ID
from tests.model.test_past_model import CREATOR, Record
from tests.simulation.sim_views import MemoryViews

HISTORIES = 24
STEPS = 50
NAMES = ("default", "gpu", "idle")
SETTINGS = StreamId("p0-queues")
QUEUE_CODEC = Codec(queue.EVENTS)


def run_history(random: Random) -> list[Recorded[RunEvent]]:
    """Whatever may happen to a run, over its ends and retries."""
    hands = Hands(random)
    for _ in range(STEPS):
        hands.step(random)
    return hands.story.log


def settings_history(random: Random) -> tuple[queue.QueuesState, list[Recorded[Any]]]:
    """Random changes of settings, and what they fold to."""
    state, log = queue.QueuesState({}), []
    for number in range(STEPS // 3):
        limit, rate = random.choice([None, 1, 9]), random.choice([None, queue.RateLimit(0.5, 2)])
        pause = random.choice([None, queue.Pause("why"), queue.Pause("")])
        command = queue.UpdateQueue(
            now_ns=number,
            request_id=RequestId(str(number)),
            request_digest=bytes(32),
            queue=random.choice(NAMES),
            concurrency_limit=random.choice([None, queue.Change(limit)]),
            rate_limit=random.choice([None, queue.Change(rate)]),
            pause=random.choice([None, queue.Change(pause)]),
        )
        with suppress(Refusal):
            for fact in queue.decide(state, command):
                recorded = Recorded(fact, state.version + 1, number + 1, str(number), bytes(32))
                queue.evolve(state, recorded)
                log.append(recorded)
    return state, log


async def recorded_of(
    random: Random, run: list[Recorded[RunEvent]], settings: list[Recorded[Any]]
) -> MemoryStore:
    """Return a log in which the streams alternate at random."""
    record, facts = Record(), {StreamId(RUN_ID): run[::-1], SETTINGS: settings[::-1]}
    while any(facts.values()):
        stream = random.choice([stream for stream, left in facts.items() if left])
        codec = QUEUE_CODEC if stream == SETTINGS else RUN_CODEC
        await record.add(stream, codec, facts[stream].pop())
    return record.store


async def projected(random: Random, store: MemoryStore) -> dict[str, QueueRow]:
    """Return the view, stored in batches of random sizes, now and then by a new projector."""
    views, target, done = MemoryViews(), Target(QUEUES), 0
    await views.prepare([target])
    cohort = None
    while done < len(store.events):
        if cohort is None or random.random() < 0.2:
            position = store.events[done - 1].position if done else 0
            cohort = Cohort(MemoryLog(store), views, RunFolds(RUN_CODEC), [target], position)
        batch = store.events[done : done + random.randint(1, 9)]
        await cohort.project(batch)
        await cohort.settle()
        done += len(batch)
    assert not cohort or not cohort.stops
    return {key[0]: QueueRow(*row) for key, row in views.tables[target].items()}


def work_of(log: list[Recorded[RunEvent]]) -> dict[str, Counter[str]]:
    """Count what each queue's tasks came to, by the fold of the run."""
    state, found = new_run(RUN_ID, NAMESPACE), defaultdict[str, Counter[str]](Counter)
    for recorded in log:
        event: Any = recorded.event
        named = state.tasks.get(TaskName(getattr(event, "task", "")))
        was_leased = named is not None and isinstance(named.phase, Leased)
        known = set(state.tasks)
        evolve(state, recorded)
        for name in state.tasks.keys() - known:
            found[state.tasks[name].spec.queue]["tasks"] += 1
        if named is None:
            continue
        for word in _words(event, was_leased):
            found[named.spec.queue][word] += 1
    return found


def _words(event: Any, was_leased: bool) -> Iterator[str]:
    match event:
        case ev.AttemptLeased():
            yield "leases"
        case ev.AttemptSucceeded():
            yield "results"
        case ev.AttemptFailed() | ev.AttemptLost() | ev.AttemptTimedOut():
            yield "failures"
        case ev.TaskFailed() if was_leased:
            yield "failures"


@pytest.mark.parametrize("block", range(2))
async def test_the_view_is_what_settings_and_runs_fold_to(block: int) -> None:
    counted = Counter[str]()
    for seed in range(block * HISTORIES // 2, (block + 1) * HISTORIES // 2):
        random = Random(seed)
        run, (state, settings) = run_history(random), settings_history(random)
        rows = await projected(random, await recorded_of(random, run, settings))
        work = work_of(run)
        assert rows.keys() == work.keys() | state.settings.keys(), seed
        for name, row in rows.items():
            counts = dict(zip(("tasks", "leases", "results", "failures"), row[3:7], strict=True))
            assert Counter(counts) == work[name], (seed, name)
            counted.update(counts)
            told = state.of(name)
            assert row.concurrency_limit == told.concurrency_limit
            rate = told.rate_limit
            assert row.tokens_per_second == (None if rate is None else rate.tokens_per_second)
            assert row.burst == (None if rate is None else rate.burst)
            assert (
                None if row.pause_reason is None else queue.Pause(row.pause_reason)
            ) == told.pause
            assert max(row.limit_version, row.rate_version, row.pause_version) == told.version
            assert row.changed_ns == told.changed_ns
            by = CREATOR if told.version else Principal()
            assert Principal.FromString(row.changed_by) == by
    assert min(counted.values()) > 0, "of everything there was some"
