"""A worker frozen past its lease wakes up: what it still reports is refused."""

from __future__ import annotations

import signal
from datetime import timedelta

from tests.e2e.conftest import Gate, Suite, accepted, events_of, of_kind, until_true
from tests.waiting import until


async def test_a_frozen_workers_completion_is_refused_with_the_current_epoch(
    suite: Suite, gate: Gate
) -> None:
    plan = {
        "tasks": [gate.task("t", timeouts={"heartbeat": "1s"})],
        "output": {"from": "task", "task": "t"},
    }
    async with suite.client() as client:
        run = await client.start(plan)
        await until(lambda: gate.count("start")["t"] == 1)
        holder = (await client.tasks(run))[0].worker_id
        frozen = suite.signal(holder, signal.SIGSTOP)
        try:
            # The lease runs out and the other worker starts the body again.
            await until(lambda: gate.count("start")["t"] == 2)
            gate.open()
            assert await client.result(run, timeout=timedelta(seconds=30)) is not None
            # Both bodies ended: the frozen worker's result only waits for it to wake.
            await until(lambda: gate.count("end")["t"] == 2)
        finally:
            assert suite.signal(holder, signal.SIGCONT) == frozen

        task = (await client.tasks(run))[0]
        # The kernel may have offered it to the frozen worker once more before it reached the other.
        assert task.epoch >= 2
        assert task.worker_id != holder

        async def refused() -> bool:
            return bool(of_kind(await events_of(client, run), "WriteRefused"))

        await until_true(refused)
        events = await events_of(client, run)
        refusal = of_kind(events, "WriteRefused")[0].body
        assert (refusal["task"], refusal["epoch"]) == ("t", "1")
        assert refusal["currentEpoch"] == str(task.epoch)
        assert accepted(events) == {"t": 1}
        assert of_kind(events, "AttemptSucceeded")[0].body["epoch"] == str(task.epoch)
        assert {event.body["cause"] for event in of_kind(events, "AttemptLost")} == {
            "LOSS_CAUSE_EXPIRED"
        }
