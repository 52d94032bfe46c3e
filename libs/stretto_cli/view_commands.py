"""Commands on the views of the log: views, rebuild."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from stretto_cli import printing
from stretto_cli.command_form import add_commands
from stretto_cli.connection import Suite
from stretto_cli.exits import ExitStatus
from stretto_cli.options import AsJson

if TYPE_CHECKING:
    from stretto_sdk.client import Client
    from stretto_sdk.client_views import FreshFold, View, ViewProof, Views

ViewNames = Annotated[
    list[str] | None,
    typer.Argument(metavar="[VIEW]...", help="Which views; none = all.", show_default=False),
]


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    add_commands(app, views, rebuild)


def views(suite: Suite, as_json: AsJson = False) -> None:
    """List the views of the log: how far each has followed it, and why one stands still.

        stretto views
        stretto views --json | jq -r '.views[] | select(.state == "STOPPED") | .name'

    A view that meets an event it cannot read, or whose table refuses its rows, stands still before
    it; the others go on. Views are no record: `stretto rebuild` makes them again. ROWS
    is PostgreSQL's estimate, and empty until it has made one.

    --json: {"views": [{"name", "version", "state", "position", "row_count", "stop_position",
    "stop_reason", "stop_message", "event_count", "log_event_count"}], "partition": "p0",
    "log_position": 1234, "relay": {"position", "stop_position", "stop_reason", "stop_message"},
    "snapshot_count", "snapshot_bytes"}.

    Exit status: 0 all follow the log, 1 one stands still or is absent, or was not given all events.
    """

    async def read(client: Client) -> Views:
        return await client.views()

    found = suite.ask(read)
    if as_json:
        printing.print_json(found)
    else:
        printing.print_table(
            ("VIEW", "STATE", "POSITION", "BEHIND", "EVENTS", "ROWS", "WHY"),
            (_row(view, found.log_position) for view in found.views),
        )
        if found.snapshot_count:
            size_mb = found.snapshot_bytes / 1e6
            printing.note(f"snapshots of {found.snapshot_count} large runs, {size_mb:.1f} MB")
    if any(view.state != "FOLLOWING" or _lacks(view) for view in found.views):
        raise typer.Exit(ExitStatus.FAILED)


def rebuild(
    suite: Suite,
    names: ViewNames = None,
    compare: Annotated[
        bool, typer.Option("--compare", help="Only compare: nothing is put in place of anything.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Make views again from the first event, while everything goes on, and put them in place.

        stretto rebuild
        stretto rebuild tasks attempts
        stretto rebuild --compare --json

    The new views are built beside the live ones, compared with them row by row at one position, and
    exchanged at once. It goes on after Ctrl-C, and when a process of the suite dies; the same
    command shows it again. A view that stands still is made anew once what stopped it is mended, or
    this version can read it; until then the command names the event and changes nothing.

    --json: {"fold_id", "views", "phase", "position", "log_position", "events_per_s", "remaining",
    "done", "proofs": [{"view", "position", "equal", "live_row_count", "fresh_row_count",
    "live_digest", "fresh_digest"}], "swap_ms", "failure", "failure_reason"}, at the end.

    Exit status: 0 done, and every live view was what the log says; 1 one was not (a rebuild has
    mended it), or it could not be finished.
    """

    async def follow(client: Client) -> FreshFold:
        asked = client.compare_views if compare else client.rebuild_views
        last: FreshFold | None = None
        with _bar("comparing" if compare else "rebuilding") as progress:
            async with aclosing(asked(*names or ())) as folds:
                async for last in folds:
                    _show(progress, last)
        assert last is not None, "the kernel tells of the end"
        return last

    fold = suite.ask(follow)
    if as_json:
        printing.print_json(fold)
    elif fold.failure:
        printing.complain(f"given up: {fold.failure_reason}: {fold.failure}")
    else:
        rows = [_proof_row(proof) for proof in fold.proofs]
        stood_still = sorted({*fold.views} - {proof.view for proof in fold.proofs})
        rows += [(name, "", "", "standing still: it is new") for name in stood_still]
        printing.print_table(("VIEW", "ROWS", "AT", "LIVE VIEW WAS"), rows)
        if not compare:
            printing.note(f"in place; readers waited {fold.swap_ms:.1f} ms")
    if not fold.all_equal:
        raise typer.Exit(ExitStatus.FAILED)


def _row(view: View, log_position: int) -> tuple[str, ...]:
    why = f"{view.stop_reason} at {view.stop_position}: {view.stop_message}"
    return (
        view.name,
        printing.state(view.state),
        f"{view.position:,}",
        f"{max(0, log_position - view.position):,}",
        f"{view.event_count:,}" + (f" [red]of {view.log_event_count:,}[/]" if _lacks(view) else ""),
        f"~{view.row_count:,}" if view.row_count else "",
        printing.escape(why) if view.stop_reason else "",
    )


def _lacks(view: View) -> bool:
    """Whether the log has other events up to its position than it was given."""
    return view.event_count != view.log_event_count


def _proof_row(proof: ViewProof) -> tuple[str, ...]:
    verdict = "equal" if proof.equal else f"[red]different[/] ({proof.live_row_count:,} rows)"
    return (proof.view, f"{proof.fresh_row_count:,}", f"{proof.position:,}", verdict)


def _bar(what: str) -> Progress:
    progress = Progress(
        TextColumn("[bold]{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        console=printing.err,
        transient=True,
        disable=not printing.err.is_terminal,
    )
    progress.add_task(what, total=None, rate="")
    return progress


def _show(progress: Progress, fold: FreshFold) -> None:
    rate = f"{fold.events_per_s:,.0f} events/s" if fold.events_per_s else fold.phase.lower()
    if fold.remaining is not None:
        rate += f", {fold.remaining.total_seconds():.0f} s left"
    (bar,) = progress.task_ids
    progress.update(bar, total=fold.log_position or None, completed=fold.position, rate=rate)
