"""The bench: `make bench`, or `python -m tests.bench [--only W1,fold] [--rounds N]`.

Real processes on an embedded PostgreSQL with fsync on; one JSON line per figure on stdout,
progress on stderr. Nothing here judges a figure. docs/benchmarks.md says how each is measured.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import os
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing

from tests.bench import ground, growth, kills, overload, past, rest, speeds, views
from tests.bench.figures import Round, lines
from tests.bench.scale import FULL, TOY, Scale
from tests.bench.speeds import Measurement, say

Workload = Callable[[Scale, list[str]], AsyncIterator[Measurement]]

GROUPS: Mapping[tuple[str, ...], Workload] = {
    ("W1-unary", "W1-coalesced", "W2", "W3-fan", "W3-chain"): speeds.independent_runs,
    ("overload-1x", "overload-2x"): overload.overload,
    ("append",): speeds.append,
    ("fold",): rest.fold,
    ("W4-worker", "W4-kernel", "W4-postgres"): kills.kills,
    tuple(f"size-{tasks}" for tasks in FULL.size_tasks): growth.sizes,
    tuple(f"queued-{tasks}" for tasks in FULL.queued_tasks): growth.queued,
    ("ended",): growth.ended,
    ("views", "rebuild", "relay"): views.views,
    ("as-of",): past.past,
    ("idle",): rest.idle,
    ("startup",): rest.startup,
    ("loop",): rest.loop,
    tuple(f"ground-{part}" for part in ground.PARTS): ground.ground,
}
"""Workloads by the stack they share, in the order they run."""

LATER = ("W3-steps",)
"""Workloads whose subject this version does not have."""


async def bench(scale: Scale, only: tuple[str, ...]) -> bool:
    """Run what begins with one of `only` (everything when empty), and print its figures.

    Returns whether every workload was measured: one that fails does not end the others.
    """
    say(f"left out, since there is nothing to measure yet: {', '.join(LATER)}")
    whole = True
    for names, workload in GROUPS.items():
        wanted = [name for name in names if not only or name.startswith(only)]
        if not wanted:
            continue
        rounds: dict[str, list[Round]] = {name: [] for name in wanted}
        settings: dict[str, Mapping[str, object]] = {}
        try:
            async with aclosing(workload(scale, wanted)) as measurements:  # type: ignore[type-var]
                async for name, measured, how in measurements:
                    figures = ", ".join(
                        f"{metric} {value:.4g}" for metric, value in measured.items()
                    )
                    say(f"{name}: {figures}")
                    rounds[name].append(measured)
                    settings[name] = how
        except Exception as error:
            whole = False
            say(f"{', '.join(wanted)}: not measured to the end: {error!r}")
        for name in wanted:
            if rounds[name]:
                sys.stdout.writelines(
                    f"{line}\n" for line in lines(name, rounds[name], settings[name])
                )
        sys.stdout.flush()
    return whole


def main() -> None:
    """Read the command line."""
    arguments = argparse.ArgumentParser(prog="tests.bench", description=__doc__)
    arguments.add_argument("--only", default="", help="beginnings of names, with commas between")
    arguments.add_argument("--rounds", type=int, help="how often each workload is repeated")
    arguments.add_argument("--toy", action="store_true", help="toy sizes: only shows that it runs")
    given = arguments.parse_args()
    scale = TOY if given.toy else FULL
    if given.rounds:
        scale = dataclasses.replace(scale, rounds=given.rounds, kill_rounds=given.rounds)
    only = tuple(filter(None, given.only.split(",")))
    every = [name for names in GROUPS for name in names]
    for beginning in only:
        if not any(name.startswith(beginning) for name in every):
            arguments.error(f"no workload begins with {beginning!r}; there are {', '.join(every)}")
    # Children are forked while gRPC's threads run; its fork handlers can end them first.
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
    sys.exit(0 if asyncio.run(bench(scale, only)) else 1)


if __name__ == "__main__":
    main()
