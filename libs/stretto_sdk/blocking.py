"""The client for programs without an event loop: start a plan, wait, have its output."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from stretto_sdk.client import Client
from stretto_sdk.plan import AnyPlan


def run_plan(
    plan: AnyPlan,
    *,
    input: object = None,
    labels: Mapping[str, str] | None = None,
    address: str | None = None,
    token: str | None = None,
) -> object:
    """Start a run, wait until it ends and return its output; not for use inside an event loop.

    >>> plan = Plan("hello")
    >>> plan.output = plan.task("hello", executor="process", argv=["date"], output="text").output()
    >>> print(run_plan(plan))

    input, labels: over those of the plan. address, token: as for Client.
    Raises what Client.start and Client.result raise.
    """

    async def run() -> object:
        async with Client(address, token) as client:
            return await client.run(plan, input=input, labels=labels)

    return asyncio.run(run())
