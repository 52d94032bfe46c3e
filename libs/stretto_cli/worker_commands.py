"""Commands on workers: workers, worker start, worker drain."""

from __future__ import annotations

import importlib.util
import os
import sys
from typing import TYPE_CHECKING, Annotated

import typer
from stretto_core.errors import InvalidArgument, Unavailable
from stretto_core.rpc.tokens import TOKENS_FILE

from stretto_cli import printing
from stretto_cli.command_form import add_command, add_commands
from stretto_cli.connection import Suite
from stretto_cli.options import AsJson, Reason

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stretto_sdk.client import Client
    from stretto_sdk.client_workers import KnownWorker

SERVICE = "stretto_worker"
"""Run as a module, never imported here."""

WorkerId = Annotated[str, typer.Argument(metavar="ID", help="A worker; `stretto workers` shows.")]


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    add_commands(app, workers)
    group = typer.Typer(
        name="worker",
        no_args_is_help=True,
        help="Start a worker here, or ask one to end.\n\n`stretto workers` lists them.",
    )
    add_command(group, start)
    add_command(group, drain)
    app.add_typer(group)


def workers(
    suite: Suite,
    connected: Annotated[
        bool, typer.Option("--connected", help="Only those that are connected.")
    ] = False,
    history: Annotated[
        bool, typer.Option("--all", help="Also every one that ever had work.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """List workers: those connected, and those lost or gone in the last hour.

        stretto workers
        stretto workers --all
        stretto workers --json | jq -r '.workers[] | select(.lease_count == 0) | .worker_id'

    What is live is memory of the kernel: right after its restart workers come back one by one.

    --json: {"workers": [{"worker_id", "session_id", "state", "transport", "queues", "executors",
    "labels", "slot_count", "lease_count", "connect_time", "seen_time", "control_address",
    "version", "reason", "leases", "granted_lease_count", "first_lease_time"}]}.
    """
    if connected and history:
        raise InvalidArgument("--connected or --all: those that are there, or all that ever were")

    async def read(client: Client) -> Sequence[KnownWorker]:
        return await client.workers(connected_only=connected, history=history)

    found = suite.ask(read)
    if as_json:
        printing.print_json({"workers": found})
    elif found:
        printing.print_table(
            ("WORKER", "STATE", "LEASES", "QUEUES", "EXECUTORS", "LABELS", "SINCE", "SEEN", ""),
            (_row(worker) for worker in found),
        )
    else:
        printing.note("no workers; start one with `stretto worker start`")


def drain(suite: Suite, worker: WorkerId, reason: Reason = "", as_json: AsJson = False) -> None:
    """Ask a worker to finish what it runs and to end; it is given nothing more.

        stretto worker drain build-1 --reason "its disk is full"

    Returns at once; `stretto workers` shows it DRAINING, then GONE. Safe to repeat. A supervisor
    may start it again, and its next process works as any other.

    --json: the worker, as `stretto workers --json` has it.
    """

    async def ask(client: Client) -> KnownWorker:
        return await client.drain_worker(worker, reason=reason)

    asked = suite.ask(ask)
    if as_json:
        printing.print_json(asked)
    else:
        printing.note(f"{asked.worker_id} drains: {asked.lease_count} leases left")


def start(
    suite: Suite,
    name: Annotated[
        str | None,
        typer.Option(
            metavar="ID",
            help="Its id, the same at every start. Default: the next free one of the data "
            "directory, on this machine.",
            show_default=False,
        ),
    ] = None,
    queue: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="A queue it serves; may be repeated.", show_default=False
        ),
    ] = None,
    slots: Annotated[int, typer.Option(metavar="N", help="Tasks at once.", min=1, max=10_000)] = 16,
    labels: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE",
            help="What tasks may require of it; may be repeated.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Run a worker here, in the foreground: commands, functions and waiting, for a suite anywhere.

        stretto worker start --queue gpu --labels zone=b --slots 2
        stretto worker start --address build.example:7788 --token-file worker.token --name build-1

    For a suite elsewhere take its worker's token (`tokens/worker.token` of its data directory).
    SIGTERM or Ctrl-C drains it: it takes nothing more, finishes what runs within 30 s
    (STRETTO_DRAIN_S), gives the rest back, and ends. Started again under the same id it takes the
    place of the one before.

    Exit status: 0 drained, 1 refused, 2 wrong settings, 4 a newer process of this worker took over.
    """
    settings = suite.settings
    if not settings.address.value:
        raise Unavailable(
            f"no suite runs in {settings.data_dir.value}: name one with --address or --data-dir"
        )
    if importlib.util.find_spec(SERVICE) is None:
        raise Unavailable("the worker is not installed here: pip install 'stretto[server]'")
    environ = {
        **os.environ,
        "STRETTO_KERNEL_ADDRESS": settings.address.value,
        "STRETTO_DATA_DIR": settings.data_dir.value,
        "STRETTO_WORKER_QUEUES": _joined(queue, "--queue"),
        "STRETTO_WORKER_SLOTS": str(slots),
        "STRETTO_WORKER_LABELS": _joined(labels, "--labels"),
        **({} if name is None else {"STRETTO_WORKER_NAME": name}),
        **_token(suite),
    }
    served = ", ".join(queue or ["default"])
    printing.note(
        f"a worker of {settings.address.value}, queue {served}, {slots} slots; Ctrl-C drains it"
    )
    sys.stderr.flush()
    # It becomes the worker: signals and the exit status are its own.
    os.execve(sys.executable, [sys.executable, "-m", SERVICE], environ)


def _token(suite: Suite) -> dict[str, str]:
    """The token to be a worker with: the one given, else the suite's own of this machine."""
    settings = suite.settings
    own = settings.directory.tokens_path / "worker.token"
    if not settings.elsewhere and own.exists():
        return {
            "STRETTO_TOKEN": "",
            "STRETTO_TOKEN_FILE": str(own),
            "STRETTO_TOKENS_FILE": str(own.with_name(TOKENS_FILE)),
        }
    return {} if settings.secret is None else {"STRETTO_TOKEN": settings.secret.reveal()}


def _joined(words: list[str] | None, option: str) -> str:
    for word in words or ():
        if not word or "," in word:
            raise InvalidArgument(f"{option}: {word!r} is empty or has a comma")
        if option == "--labels" and not word.partition("=")[1]:
            raise InvalidArgument(f"{option}: {word!r} is not KEY=VALUE")
    return ",".join(words or ())


def _row(worker: KnownWorker) -> tuple[str, ...]:
    slots = f"/{worker.slot_count}" if worker.slot_count else ""
    return (
        printing.escape(worker.worker_id),
        printing.state(worker.state),
        f"{worker.lease_count}{slots}",
        printing.escape(", ".join(worker.queues)),
        printing.escape(", ".join(worker.executors)),
        printing.escape(
            ", ".join(f"{key}={value}" for key, value in sorted(worker.labels.items()))
        ),
        printing.age(worker.connect_time),
        printing.age(worker.seen_time),
        printing.escape(worker.reason),
    )
