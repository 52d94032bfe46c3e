"""What PostgreSQL is asked during W1 and W2: `python -m tests.bench.sql`, one table a workload.

By pg_stat_statements, over the whole stack, views and relay's place included. Times are those of
the statements' execution, without planning and without the wait for the disk at commit.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import sys

import psycopg

from tests.bench.rest import STATEMENTS
from tests.bench.scale import FULL, TOY, Scale
from tests.bench.stack import Layout, Stack, running

LINES_MAX = 12
TEXT_MAX = 90
QUESTION = (
    "SELECT query, calls, total_exec_time * 1000, rows FROM pg_stat_statements"
    " WHERE query NOT LIKE '%%pg_stat_statements%%' ORDER BY total_exec_time DESC"
)


async def profile(scale: Scale) -> None:
    """Print the statements of each workload, the most expensive first."""
    async with running(Layout(postgres_settings=STATEMENTS)) as (stack, client):
        await client.do("unary", runs=scale.warm_runs, outstanding=scale.outstanding)
        with psycopg.connect(stack.postgres.dsn(), autocommit=True) as connection:
            connection.execute("CREATE EXTENSION pg_stat_statements")
        for name in ("unary", "coalesced", "sequence"):
            runs = scale.sequence_runs if name == "sequence" else scale.independent_runs
            how = {"runs": runs}
            if name != "sequence":
                how["outstanding"] = scale.outstanding
            _reset(stack)
            await client.do(name, **how)
            _print(stack, name, runs)


def _reset(stack: Stack) -> None:
    with psycopg.connect(stack.postgres.dsn(), autocommit=True) as connection:
        connection.execute("SELECT pg_stat_statements_reset()")


def _print(stack: Stack, name: str, runs: int) -> None:
    with psycopg.connect(stack.postgres.dsn(), autocommit=True) as connection:
        found = connection.execute(QUESTION).fetchall()
    calls = sum(row[1] for row in found)
    total_us = sum(row[2] for row in found)
    lines = [f"{name}: {calls / runs:.2f} statements and {total_us / runs:.0f} us a run"]
    lines.append("| us a run | calls a run | rows a call | statement |")
    lines.append("| --- | --- | --- | --- |")
    for query, count, took_us, rows in found[:LINES_MAX]:
        text = re.sub(r"\s+", " ", query).replace("|", "\\|")[:TEXT_MAX]
        lines.append(
            f"| {took_us / runs:.1f} | {count / runs:.2f} | {rows / count:.1f} | `{text}` |"
        )
    sys.stdout.write("\n".join(lines) + "\n\n")


def main() -> None:
    """Read the command line."""
    arguments = argparse.ArgumentParser(prog="tests.bench.sql", description=__doc__)
    arguments.add_argument("--toy", action="store_true", help="toy sizes: only shows that it runs")
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
    asyncio.run(profile(TOY if arguments.parse_args().toy else FULL))


if __name__ == "__main__":
    main()
