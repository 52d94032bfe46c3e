"""Who follows the log or a run goes on by itself while the kernel is killed, and counts once."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
from contextlib import aclosing

from stretto_sdk.runs import Event

from tests.e2e.conftest import BIN, Gate, Suite, events_of
from tests.waiting import until

RUNS = 12


def started(suite: Suite, *arguments: str) -> subprocess.Popen[str]:
    """Run `stretto` beside the test."""
    return subprocess.Popen(
        [BIN / "stretto", *arguments], env=suite.environ, stdout=subprocess.PIPE, text=True
    )


async def test_followers_count_every_event_once_while_the_kernel_is_killed(
    suite: Suite, gate: Gate
) -> None:
    plan = {"tasks": [gate.task(f"t{number}") for number in range(3)]}
    seen: list[Event] = []

    async def follow() -> None:
        async with aclosing(client.events(follow=True)) as events:
            async for event in events:
                seen.append(event)

    async with suite.client() as client:
        first = await client.start(plan)
        following = asyncio.create_task(follow())
        with (
            started(suite, "events", "--follow", "--json", "--type", "RunSucceeded") as ends,
            started(suite, "watch", first.run_id, "--json") as watch,
        ):
            assert watch.stdout is not None and ends.stdout is not None
            begun = await asyncio.to_thread(watch.stdout.readline)
            runs = [first]
            for number in range(1, RUNS):
                runs.append(await client.start(plan))
                if number % 4 == 0:
                    restarts = suite.restarts("kernel")
                    suite.signal("kernel", signal.SIGKILL)
                    await until(lambda: suite.restarts("kernel") > restarts)  # noqa: B023
            gate.open()
            for run in runs:
                await client.wait(run)
            changes = [json.loads(line) for line in [begun, *watch.stdout.read().splitlines()]]
            ended = [json.loads(await asyncio.to_thread(ends.stdout.readline)) for _ in runs]
            ends.terminate()
        assert watch.returncode == 0
        versions = [change["version"] for change in changes]
        assert versions == sorted(versions) and changes[-1]["ended"]
        assert [change for change in changes[:-1] if change["ended"]] == []
        assert sorted(each["stream"] for each in ended) == sorted(run.run_id for run in runs)
        for run in runs:
            expected = [event.version for event in await events_of(client, run)]
            await until(lambda: seen[-1].type.endswith("RunSucceeded"))
            assert [e.version for e in seen if e.stream == run.run_id] == expected
        following.cancel()
