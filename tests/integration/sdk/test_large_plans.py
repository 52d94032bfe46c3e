"""Plans larger than one message against a real kernel: whole or not at all, once, from anywhere."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest
from stretto_sdk import Client, RunState
from stretto_sdk.errors import AlreadyExists, InvalidArgument
from stretto_sdk.slices import SLICE_TASKS_MAX

from tests.integration.kernel.serving import Served, served

COUNT = 1_700
REQUEST_ID = "0190f5f0-0000-7000-8000-000000000001"


def form(**last: Any) -> dict[str, Any]:
    """A chain of tasks; the last one as told."""
    tasks: list[dict[str, Any]] = [{"name": "t0", "executor": "test.body"}]
    tasks += [
        {"name": f"t{n}", "executor": "test.body", "after": [f"t{n - 1}"]} for n in range(1, COUNT)
    ]
    tasks[-1].update(last)
    tasks.reverse()  # Nothing hangs on the order they are written in.
    return {"tasks": tasks, "output": {"from": "task", "task": f"t{COUNT - 1}"}}


@asynccontextmanager
async def suite(dsn: str) -> AsyncIterator[tuple[Served, Client]]:
    async with served(dsn) as kernel, Client(kernel.address) as client:
        yield kernel, client


async def test_a_large_plan_is_recorded_whole_and_once(fresh_database: str) -> None:
    async with suite(fresh_database) as (_, client):
        first = await client.start(form(), request_id=REQUEST_ID)
        again = await client.start(form(), request_id=REQUEST_ID, wait=timedelta(milliseconds=1))
        assert first.run_id == again.run_id
        assert first.version == again.version
        assert (again.tasks.total, again.growing) == (COUNT, False)
        assert [each.name for each in await client.tasks(first)] == [f"t{n}" for n in range(COUNT)]
        types = [each.type.rpartition(".")[2] async for each in client.events(first)]
        slice_count = -(-COUNT // SLICE_TASKS_MAX)
        assert types == ["RunStarted"] + ["TasksAdded"] * (slice_count - 1)
        with pytest.raises(AlreadyExists):
            await client.start(form(queue="other"), request_id=REQUEST_ID)


async def test_a_start_that_broke_off_goes_on_where_it_was(fresh_database: str) -> None:
    async with suite(fresh_database) as (_, client):
        broken = asyncio.create_task(client.start(form(), request_id=REQUEST_ID))
        async with aclosing(client.events(follow=True)) as events:
            begun = await anext(events)
        broken.cancel()
        await asyncio.wait([broken])
        whole = await client.start(form(), request_id=REQUEST_ID)
        assert begun.stream.endswith(whole.run_id)
        assert (whole.tasks.total, whole.growing) == (COUNT, False)


@pytest.mark.parametrize(
    ("last", "path"),
    [
        ({"queue": "no such word"}, "tasks[0].queue"),
        ({"after": ["t1", "tx"]}, "tasks[0].after[1]"),
        ({"name": "t0"}, f"tasks[{COUNT - 1}].name"),
        ({"arguments": {"text": "x" * 70_000}}, "tasks[0].arguments"),
    ],
)
async def test_of_a_wrong_plan_nothing_is_stored(
    fresh_database: str, last: dict[str, Any], path: str
) -> None:
    async with suite(fresh_database) as (kernel, client):
        wrong = {**form(**last), "output": None}
        for attempt in (client.validate, client.start):
            with pytest.raises(InvalidArgument) as refused:
                await attempt(wrong)
            assert path in {each.field for each in refused.value.violations}
        assert [each async for each in client.events()] == []
        assert kernel.kernel.is_owner


async def test_a_plan_that_is_right_is_only_checked(fresh_database: str) -> None:
    async with suite(fresh_database) as (_, client):
        await client.validate(form())
        assert [each async for each in client.events()] == []


async def test_a_plan_that_goes_on_growing_stays_open(fresh_database: str) -> None:
    async with suite(fresh_database) as (_, client):
        run = await client.start({**form(), "growing": True})
        assert run.growing
        more = [{"name": "more", "executor": "test.body", "after": [f"t{COUNT - 1}"]}]
        grown = await client.add_tasks(run, more, sealed=True)
        assert (grown.tasks.total, grown.growing) == (COUNT + 1, False)


async def test_a_run_that_was_killed_meanwhile_takes_no_more(fresh_database: str) -> None:
    async with suite(fresh_database) as (_, client):
        run = await client.start(form(), request_id=REQUEST_ID)
        await client.kill(run)
        again = await client.start(form(), request_id=REQUEST_ID)
        assert (again.run_id, again.state) == (run.run_id, RunState.KILLED)
