"""What the shell offers for a run or a task: asked of the suite, within a blink or not at all.

A completion must never make a person wait or write anything of its own: an answer that takes more
than COMPLETION_MS_MAX, an unreachable suite, a missing permission all mean "nothing to offer".
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from typer import Context

if TYPE_CHECKING:
    from stretto_sdk.client import Client

Offers: TypeAlias = list[tuple[str, str]]

COMPLETION_MS_MAX = 300
_OFFERS_MAX = 20


def complete_run(ctx: Context, incomplete: str) -> Offers:
    """Offer the newest runs whose id begins with what is typed, and `last`."""

    async def newest(client: Client) -> Offers:
        page = await client.pages.runs(page_size=_OFFERS_MAX)
        return [(each.run_id, f"{each.state} {each.name}".rstrip()) for each in page.runs]

    offers = [("last", "the newest run"), *_asked(ctx, newest)]
    return [offer for offer in offers if offer[0].startswith(incomplete)]


def complete_task(ctx: Context, incomplete: str) -> Offers:
    """Offer the tasks of the run that the command line names."""
    run = str(ctx.params.get("run") or "")

    async def of_run(client: Client) -> Offers:
        from stretto_cli.run_reference import find_run  # noqa: PLC0415 - only when asked

        page = await client.pages.tasks(await find_run(client, run), page_size=1_000)
        found = [(each.name, str(each.state)) for each in page.tasks]
        return [offer for offer in found if offer[0].startswith(incomplete)][:_OFFERS_MAX]

    return _asked(ctx, of_run) if run else []


def _asked(ctx: Context, use: Callable[[Client], Awaitable[Offers]]) -> Offers:
    try:
        from stretto_cli.connection import Suite  # noqa: PLC0415 - brings the client
        from stretto_cli.settings import Flags, effective_settings  # noqa: PLC0415 - as above

        given = ctx.params
        flags = Flags(
            address=given.get("address"),
            token_file=_path(given.get("token_file")),
            data_dir=_path(given.get("data_dir")),
            namespace=given.get("namespace"),
            config=_path(given.get("config")),
            context=given.get("context"),
        )

        async def in_time(client: Client) -> Offers:
            async with asyncio.timeout(COMPLETION_MS_MAX / 1_000):
                return await use(client)

        suite = Suite(effective_settings(flags, os.environ))
        return suite.ask(in_time, retry_budget=timedelta(0))
    except Exception:
        return []  # See above: whatever it is, a shell's prompt is no place to say so.


def _path(given: object) -> Path | None:
    return Path(str(given)) if given else None
