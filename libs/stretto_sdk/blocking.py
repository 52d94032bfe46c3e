"""One call for a program without an event loop: start a plan, wait, have its output."""

from __future__ import annotations

from collections.abc import Mapping

from stretto_sdk.client import FROM_PLAN
from stretto_sdk.plan import AnyPlan
from stretto_sdk.sync_client import SyncClient


def run_plan(
    plan: AnyPlan,
    *,
    input: object = FROM_PLAN,
    labels: Mapping[str, str] | None = None,
    address: str | None = None,
    token: str | None = None,
) -> object:
    """Start a run, wait until it ends and return its output; SyncClient does more than this.

    >>> plan = Plan("hello")
    >>> plan.output = plan.task("hello", executor="process", argv=["date"], output="text").output()
    >>> print(run_plan(plan))

    input, labels: over those of the plan. address, token: as for Client.
    Raises what Client.start and Client.result raise.
    """
    with SyncClient(address, token) as client:
        return client.run(plan, input=input, labels=labels)
