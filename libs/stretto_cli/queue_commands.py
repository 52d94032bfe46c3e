"""Commands on queues: queues, queue set."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from stretto_core.errors import InvalidArgument

from stretto_cli import printing
from stretto_cli.command_form import add_command, add_commands
from stretto_cli.connection import Suite
from stretto_cli.options import AsJson, Reason, one_of_two

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stretto_sdk.client import Client
    from stretto_sdk.client_queues import Queue

_NONE = "none"
_COLUMNS = (
    *("QUEUE", "READY", "RUNNING", "LIMIT", "RATE", "OLDEST", "SERVED"),
    *("LEASED", "FAILED", "LAST", ""),
)

Concurrency = Annotated[
    str | None, typer.Option(metavar="N|none", help="Most tasks at once.", show_default=False)
]
Rate = Annotated[
    str | None,
    typer.Option(
        metavar="N/s|none", help="Tasks started a second, like 10/s or 30/m.", show_default=False
    ),
]
Burst = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="With --rate: how many may start at once after a rest. Default: a second's.",
        min=1,
        show_default=False,
    ),
]
Pause = Annotated[bool, typer.Option("--pause", help="Start nothing from it.", show_default=False)]
Unpause = Annotated[bool, typer.Option("--unpause", help="Go on.", show_default=False)]


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    add_commands(app, queues)
    group = typer.Typer(
        name="queue",
        no_args_is_help=True,
        help="Set how much of a queue goes to workers.\n\n`stretto queues` lists them.",
    )
    add_command(group, set_queue, name="set")
    app.add_typer(group)


def queues(
    suite: Suite,
    history: Annotated[
        bool, typer.Option("--all", help="Also every one that ever had a task.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """List queues: what waits and runs in each, its limits, and what became of its tasks.

        stretto queues
        stretto queues --all
        stretto queues --json | jq -r '.queues[] | select(.served | not) | .queue'

    A queue is listed while tasks in work, a connected worker or a setting name it. LEASED counts
    attempts since ever, FAILED those that failed, were lost or ran out of time, and LAST is the age
    of the newest: a view says so that trails the record by moments.

    --json: {"queues": [{"queue", "concurrency_limit", "rate", "burst", "paused", "pause_reason",
    "ready_task_count", "running_task_count", "oldest_ready_time", "served", "update_time",
    "etag", "history": {"task_count", "granted_lease_count", "succeeded_attempt_count",
    "failed_attempt_count", "first_time", "last_time", "last_lease_time", "updater"}}]}; a limit of
    null is none.
    """

    async def read(client: Client) -> Sequence[Queue]:
        return await client.queues(history=history)

    found = suite.ask(read)
    if as_json:
        printing.print_json({"queues": found})
    elif found:
        printing.print_table(_COLUMNS, (_row(queue) for queue in found))
    else:
        printing.note("no queues: nothing is in work, and no worker is connected")


def set_queue(
    suite: Suite,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The queue.")],
    concurrency: Concurrency = None,
    rate: Rate = None,
    burst: Burst = None,
    pause: Pause = False,
    unpause: Unpause = False,
    reason: Reason = "",
    as_json: AsJson = False,
) -> None:
    """Set limits of a queue; the next task heeds them, and what runs goes on.

        stretto queue set gpu --concurrency 2
        stretto queue set mail --rate 10/s --burst 20
        stretto queue set mail --pause --reason "the server is down"
        stretto queue set mail --unpause --rate none

    What is not named stays as it is. Settings outlast every process, and go before those of
    STRETTO_QUEUE_LIMITS. Safe to repeat. A queue need not exist yet.

    --json: the queue, as `stretto queues --json` has it, without its history.
    """
    from stretto_sdk.client_queues import UNCHANGED  # noqa: PLC0415 - brings protobuf

    limit = UNCHANGED if concurrency is None else _concurrency(concurrency)
    per_second = UNCHANGED if rate is None else _per_second(rate)
    if burst is not None and not isinstance(per_second, float):
        raise InvalidArgument("--burst: is of a rate: give --rate, like 10/s")
    if reason and not pause:
        raise InvalidArgument("--reason: is of a pause: give --pause")
    paused = one_of_two(pause, unpause, "--pause and --unpause")
    if limit is UNCHANGED and per_second is UNCHANGED and paused is None:
        raise InvalidArgument("nothing to set: give --concurrency, --rate, --pause or --unpause")

    async def ask(client: Client) -> Queue:
        return await client.update_queue(
            name,
            concurrency_limit=limit,
            rate=per_second,
            burst=burst or 0,
            paused=UNCHANGED if paused is None else paused,
            reason=reason,
        )

    queue = suite.ask(ask)
    if as_json:
        printing.print_json(queue)
    else:
        state = "paused" if queue.paused else "not paused"
        printing.note(f"{queue.queue}: limit {_limit(queue)}, rate {_rate(queue)}, {state}")


def _concurrency(text: str) -> int | None:
    if text == _NONE:
        return None
    if not (text.isascii() and text.isdecimal()) or not 1 <= int(text) <= 1_000_000:
        raise InvalidArgument(f"--concurrency: {text!r} is neither 1-1000000 nor {_NONE}")
    return int(text)


def _per_second(text: str) -> float | None:
    if text == _NONE:
        return None
    number, slash, unit = text.partition("/")
    seconds = {"": 1, "s": 1, "m": 60, "h": 3_600}.get(unit if slash else "")
    try:
        if seconds is None or float(number) <= 0:
            raise ValueError(text)
        return float(number) / seconds
    except ValueError:
        raise InvalidArgument(
            f"--rate: {text!r} is neither a number like 10/s, 30/m or 5/h, nor {_NONE}"
        ) from None


def _limit(queue: Queue) -> str:
    return "none" if queue.concurrency_limit is None else str(queue.concurrency_limit)


def _rate(queue: Queue) -> str:
    return "none" if queue.rate is None else f"{queue.rate:g}/s, burst {queue.burst}"


def _row(queue: Queue) -> tuple[str, ...]:
    paused = f"paused: {queue.pause_reason}" if queue.pause_reason else "paused"
    past = queue.history
    last_lease_time = None if past is None else past.last_lease_time
    return (
        escape(queue.queue),
        str(queue.ready_task_count),
        str(queue.running_task_count),
        _limit(queue),
        _rate(queue),
        "" if queue.oldest_ready_time is None else printing.age(queue.oldest_ready_time),
        "yes" if queue.served else "no",
        "" if past is None else str(past.granted_lease_count),
        "" if past is None else str(past.failed_attempt_count),
        "" if last_lease_time is None else printing.age(last_lease_time),
        escape(paused) if queue.paused else "",
    )
