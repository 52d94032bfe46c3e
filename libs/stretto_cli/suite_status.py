"""Whether a suite is well: what its supervisor wrote down, and what its kernel answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from stretto_core.errors import Refusal
from stretto_core.localstack.status import ChildStatus
from stretto_sdk.endpoint import NoEndpoint
from stretto_sdk.runs import Position

from stretto_cli import printing
from stretto_cli.connection import Suite
from stretto_cli.run_filter import OPEN_STATES, filter_of
from stretto_cli.settings import Settings
from stretto_cli.suite.host import all_ready

if TYPE_CHECKING:
    from stretto_sdk.client import Client
    from stretto_sdk.client_audit import Seal
    from stretto_sdk.client_views import Relay, View, Views

COUNTED_MAX = 1_000
_ANSWER_BUDGET = timedelta(seconds=2)


@dataclass(frozen=True, slots=True, kw_only=True)
class RelayStatus:
    """How far the log is relayed to the bus; stopped: why it stands still, "" while it follows."""

    position: int
    behind: int
    stopped: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """A suite as it is. None: not known from here. trouble: why the kernel did not answer.

    stopped_views: views that stand still, or were not given all events, with the reason.
    failing_chores: what is done now and then and failed the last time, such as the sweep of blobs,
    with the reason: nothing waits for it. relay: None = nothing was ever relayed. seal: the newest
    seal of the log.
    """

    address: str
    ready: bool
    version: str
    data_directory: str | None = None
    supervisor_pid: int | None = None
    postgres: str | None = None
    processes: Sequence[ChildStatus] | None = None
    open_runs: Mapping[str, int] | None = None
    view_position: Position | None = None
    stopped_views: Mapping[str, str] | None = None
    failing_chores: Mapping[str, str] | None = None
    relay: RelayStatus | None = None
    seal: Seal | None = None
    trouble: str = ""


def read_status(settings: Settings) -> Status:
    """Return how a suite is. Raises NoEndpoint (none runs), Unavailable (one elsewhere is gone)."""
    if settings.elsewhere:
        return Suite(settings).ask(
            lambda client: _with_work(client, _bare(settings)), retry_budget=_ANSWER_BUDGET
        )
    found = _of_processes(settings)
    try:
        return Suite(settings).ask(
            lambda client: _with_work(client, found), retry_budget=_ANSWER_BUDGET
        )
    except Refusal as refusal:
        return replace(found, ready=False, trouble=refusal.message)


def print_status(status: Status) -> None:
    """Write a status for people."""
    counts = status.open_runs or {}
    runs = ", ".join(
        f"{count:,}{'+' if count == COUNTED_MAX else ''} {state}"
        for state, count in counts.items()
        if count
    )
    position = status.view_position
    printing.print_pairs(
        (
            ("address", status.address),
            ("data", printing.escape(status.data_directory or "")),
            ("pid", str(status.supervisor_pid or "")),
            ("version", status.version),
            ("postgres", status.postgres or ""),
            ("open runs", (runs or "none") if status.open_runs is not None else ""),
            ("view at", f"{position.partition}:{position.number:,}" if position else ""),
            *(
                (f"view {name}", f"[red]stopped[/] {printing.escape(why)}")
                for name, why in (status.stopped_views or {}).items()
            ),
            *(
                (name, f"[yellow]fails[/] {printing.escape(why)}")
                for name, why in (status.failing_chores or {}).items()
            ),
            *(_relay_pairs(status.relay) if status.relay else ()),
            *(_seal_pairs(status.seal) if status.seal else ()),
            ("trouble", f"[red]{printing.escape(status.trouble)}[/]" if status.trouble else ""),
        )
    )
    if status.processes is not None:
        printing.print_table(
            ("PROCESS", "STATE", "PID", "RESTARTS", "FOR"), map(_process_row, status.processes)
        )


def _relay_pairs(relay: RelayStatus) -> list[tuple[str, str]]:
    place = f"{relay.position:,}, {relay.behind:,} behind the log"
    if relay.stopped:
        return [("relayed to", f"{place} [red]stopped[/] {printing.escape(relay.stopped)}")]
    return [("relayed to", place)]


def _seal_pairs(seal: Seal) -> list[tuple[str, str]]:
    odd = printing.escape(seal.warning_message)
    warnings = [("seals missing?", f"[yellow]{odd}[/]")] if odd else []
    if seal.stop_reason:
        return [("sealed", f"[red]stopped[/] {printing.escape(seal.stop_message)}")]
    if not seal.seal_hash:
        return warnings
    place = f"{seal.partition}:{seal.position:,}, {seal.unsealed_event_count:,} events since"
    pairs = [("sealed to", place), ("seal", seal.seal_hash), ("seal key", seal.public_key)]
    return pairs + warnings


def _bare(settings: Settings) -> Status:
    return Status(address=settings.address.value, ready=True, version=version("stretto"))


def _of_processes(settings: Settings) -> Status:
    directory = settings.directory
    running, written = directory.running(), directory.status()
    if running is None or written is None:
        raise NoEndpoint(
            f"no suite runs in {directory.root}: start one with `stretto up`",
            data_directory=str(directory.root),
        )
    return replace(
        _bare(settings),
        ready=all_ready(written),
        data_directory=str(directory.root),
        supervisor_pid=running.pid,
        postgres=_postgres(directory.postgres_path),
        processes=written.children,
    )


def _postgres(path: Path) -> str:
    try:
        return f"{(path / 'data' / 'PG_VERSION').read_text().strip()} (embedded)"
    except OSError:
        return "external"  # $STRETTO_POSTGRES_DSN: ours to use, not to describe.


async def _with_work(client: Client, found: Status) -> Status:
    counts: dict[str, int] = {}
    position: Position | None = None
    for state in OPEN_STATES:
        page = await client.pages.runs(filter_of(states=state), page_size=COUNTED_MAX)
        counts[state] = len(page.runs)
        position = page.view_position
    views = await client.views()
    stopped = _stopped(views.views)
    relay = _relay(views)
    seal = await client.newest_seal()
    return replace(
        found,
        ready=found.ready
        and not stopped
        and not seal.stop_reason
        and not (relay and relay.stopped),
        relay=relay,
        seal=seal,
        open_runs=counts,
        view_position=position,
        stopped_views=stopped,
        failing_chores=views.failing_chores,
    )


def _stopped(views: Sequence[View]) -> dict[str, str]:
    stopped = {
        view.name: f"was given {view.event_count:,} of {view.log_event_count:,} events"
        for view in views
        if view.event_count != view.log_event_count
    }
    for view in views:
        if view.stop_reason:
            stopped[view.name] = _why(view)
    return stopped


def _relay(views: Views) -> RelayStatus | None:
    relay = views.relay
    if relay is None:
        return None
    behind = max(0, views.log_position - relay.position)
    why = _why(relay) if relay.stop_reason else ""
    return RelayStatus(position=relay.position, behind=behind, stopped=why)


def _why(standing: View | Relay) -> str:
    return (
        f"before the event at {standing.stop_position}: {standing.stop_reason}: "
        f"{standing.stop_message}"
    )


def _process_row(child: ChildStatus) -> tuple[str, ...]:
    since = datetime.fromtimestamp(child.since_ns / 1e9, tz=UTC)
    return (
        child.name,
        printing.state(child.state),
        str(child.pid or ""),
        str(child.restart_count),
        printing.span_text(since, datetime.now(tz=UTC)),
    )
