"""Who follows the trap's log in a process of its own: `relay` or `projector`.

Follows until its standard input ends, and says every so often as a line of JSON how far it is. The
projector's tables say the rest: its place is that of the view which is the furthest behind.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from contextlib import suppress
from typing import NamedTuple

import structlog
from stretto_core.bus.jetstream import JetStreamBus
from stretto_core.eventlog.postgres.log import PostgresLog
from stretto_kernel.adapters.relay_board import RelayBoardTable
from stretto_kernel.adapters.view_tables import ViewTables
from stretto_kernel.owned_partition import RUN_CODEC
from stretto_kernel.projections.projector import Projector
from stretto_kernel.projections.registry import VIEWS
from stretto_kernel.relay.relay import Relay

from tests.trap.subscribers import CountingBus, Tally
from tests.trap.writers import P0
from tests.waiting import passed

ROLES = ("relay", "projector")
SAID_EVERY_S = 0.25


class Said(NamedTuple):
    """How far the relay is. position: up to where the bus has taken everything."""

    event_count: int
    position: int
    wrong: str


async def follow(role: str, dsn: str, nats_url: str) -> None:
    """Follow until standard input ends. Raises what ended it before."""
    log = await PostgresLog.open(dsn, P0)
    tables = ViewTables(P0, log.tracking)
    if role == "relay":
        following = asyncio.create_task(_relay(log, tables, nats_url))
    else:
        following = asyncio.create_task(Projector(log, tables, VIEWS, RUN_CODEC).run())
    # Nothing is ever written to it: it can be read once its other end is closed.
    asyncio.get_running_loop().add_reader(sys.stdin, following.cancel)
    with suppress(asyncio.CancelledError):
        await following
    await log.close()


async def _relay(log: PostgresLog, tables: ViewTables, nats_url: str) -> None:
    tally, bus = Tally("relay"), JetStreamBus(nats_url)
    relay = Relay(log, CountingBus(bus, tally), RelayBoardTable(tables))
    try:
        async with asyncio.TaskGroup() as both:
            both.create_task(relay.run())
            both.create_task(_say(relay, tally))
    finally:
        await bus.close()


async def _say(relay: Relay, tally: Tally) -> None:
    while True:
        said = Said(tally.count, relay.position, tally.wrong)
        print(json.dumps(said._asdict()), flush=True)  # noqa: T201 - for who has started it
        await passed(SAID_EVERY_S)


def main() -> None:
    """Follow as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("role", choices=ROLES)
    parser.add_argument("--dsn", required=True)
    parser.add_argument("--nats", required=True)
    asked = parser.parse_args()
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    asyncio.run(follow(asked.role, asked.dsn, asked.nats))


if __name__ == "__main__":
    main()
