"""The kernel process: the only constructor of adapters and reader of the environment.

`python -m stretto_kernel` serves a partition; `--role projector` keeps the views and
relays the log. Ends with
status 0 after SIGTERM or SIGINT, 1 when it cannot start, 2 for wrong settings.
"""

from __future__ import annotations

from stretto_core.lean_start import imports_done  # First: it makes the others cheaper.

# isort: split
import argparse
import asyncio
import os
import signal
import sys
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import structlog
import uvloop
from stretto_core.atomic_file import write_atomically
from stretto_core.clock import NS_PER_S
from stretto_core.clock.system import SystemClock
from stretto_core.errors import Refusal
from stretto_core.eventlog.postgres.log import PostgresLog
from stretto_core.ids.system import SystemIds
from stretto_core.rpc.server import RpcServer, ServerSettings
from stretto_core.rpc.status import to_status
from stretto_core.rpc.tokens import TokenFile, TokenTable
from stretto_core.telemetry.logs import configure_logs
from stretto_core.telemetry.metrics import Registry

from stretto_kernel.adapters.artifact_table import ArtifactTable
from stretto_kernel.adapters.attempt_table import AttemptTable
from stretto_kernel.adapters.blob_table import BlobTable
from stretto_kernel.adapters.board_table import BoardTable
from stretto_kernel.adapters.fresh_fold_table import FreshFoldTable
from stretto_kernel.adapters.grpc_dialer import GrpcDialer
from stretto_kernel.adapters.past_views import PastViewTables
from stretto_kernel.adapters.queue_table import QueueTable
from stretto_kernel.adapters.run_index_table import RunIndexTable
from stretto_kernel.adapters.run_key_table import RunKeyTable
from stretto_kernel.adapters.snapshot_table import SnapshotTable
from stretto_kernel.adapters.task_log_table import TaskLogTable
from stretto_kernel.adapters.usage_table import UsageTable
from stretto_kernel.adapters.view_places import ViewPlaceReader
from stretto_kernel.adapters.worker_table import WorkerTable
from stretto_kernel.app.blob_calls import BlobCalls
from stretto_kernel.app.run_keys import RunKeys
from stretto_kernel.app.sealer import SealLimits
from stretto_kernel.app.snapshots import Snapshots
from stretto_kernel.followers import Followers
from stretto_kernel.garbage import keep_collecting, rest_mostly
from stretto_kernel.kernel import Kernel
from stretto_kernel.kernel_metrics import add_follower_metrics, add_metrics, add_task_log_metrics
from stretto_kernel.owned_partition import RUN_CODEC, KernelLimits, KernelPorts
from stretto_kernel.projections.past_boards import PastBoards
from stretto_kernel.projections.past_queues import PastQueues
from stretto_kernel.projections.past_runs import PastRuns
from stretto_kernel.projections.view_calls import ViewCalls
from stretto_kernel.projections.view_reach import ViewReach
from stretto_kernel.servicers.run_listing import ListedViews, RunListing
from stretto_kernel.serving import (
    Past,
    Readiness,
    add_servicers,
    add_views,
)
from stretto_kernel.settings import ROLES, Settings, SettingsError
from stretto_kernel.tasklog.book import LeaseLimits
from stretto_kernel.tasklog.task_logs import TaskLogs

if TYPE_CHECKING:  # Only the projector loads it.
    from stretto_core.bus.jetstream import JetStreamBus

    from stretto_kernel.adapters.task_log_sweep import TaskLogSweep
    from stretto_kernel.app.chores import Chore
    from stretto_kernel.relay.board_mirror import BoardMirror
    from stretto_kernel.relay.relay import Relay, RelayBoard

SWITCH_INTERVAL_S = 0.0005
"""Python's default of 5 ms would let the writer's thread wait for the loop that long."""
PROJECTOR_NICENESS = 5
"""Where the processors are scarce, what callers wait for comes before the views and the relay."""


def main() -> None:
    """Run the role the command line names until a signal ends it."""
    arguments = argparse.ArgumentParser(prog="stretto_kernel", description="The Stretto kernel.")
    arguments.add_argument("--role", choices=ROLES, default=ROLES[0])
    role = arguments.parse_args().role
    try:
        settings = Settings.from_env(os.environ)
    except SettingsError as error:
        sys.stderr.write(f"stretto_kernel: {error}\n")
        sys.exit(2)
    configure_logs(service=role, json=settings.log_format == "json")
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    rest_mostly()
    imports_done()
    run = _run_kernel if role == "kernel" else _run_projector
    sys.exit(uvloop.run(run(settings)))


async def _run_kernel(settings: Settings) -> int:
    log = structlog.get_logger("stretto.kernel")
    log.info("kernel.starting", settings=repr(settings))
    stopped = _stop_on_signals()
    try:
        event_log = await PostgresLog.open(settings.postgres_dsn, settings.partition)
    except Refusal as refusal:
        log.error("kernel.failed", reason=refusal.reason_word, message=str(refusal))
        return 1
    index = RunIndexTable(settings.partition, event_log.tracking)
    clock = SystemClock()
    blob_table = BlobTable(settings.postgres_dsn, clock)
    key_table = RunKeyTable(settings.postgres_dsn)
    ports = KernelPorts(
        log=event_log,
        clock=clock,
        ids=SystemIds(),
        dialer=GrpcDialer(),
        index=index,
        blobs=BlobCalls(blob_table, clock),
        keys=RunKeys(key_table),
        to_status=to_status,
        snapshots=Snapshots(
            SnapshotTable(settings.partition, event_log.tracking), event_log, RUN_CODEC
        ),
    )
    limits = KernelLimits(
        queue_limits=dict(settings.queue_limits),
        seals=SealLimits(
            events_max=settings.seal_events_max,
            interval_ns=round(settings.seal_interval_s * NS_PER_S),
        ),
        ended_runs_max=settings.ended_runs_max,
        streams_max=settings.sessions_max,
    )
    kernel = Kernel(ports, limits)
    listed = ListedViews(
        index,
        AttemptTable(settings.partition, event_log.tracking),
        ArtifactTable(settings.partition, event_log.tracking),
        UsageTable(settings.partition, event_log.tracking),
    )
    reach = ViewReach(event_log, ViewPlaceReader(settings.partition, event_log.tracking))
    listing = RunListing(listed, event_log, reach)
    log_table = TaskLogTable(settings.postgres_dsn, settings.partition)
    task_logs = TaskLogs(log_table, ports.clock, LeaseLimits(bytes_max=settings.task_log_bytes_max))
    views = FreshFoldTable(settings.postgres_dsn, settings.partition, event_log.tracking)
    past_views = PastViewTables(settings.partition, event_log.tracking)
    past = Past(
        PastRuns(event_log, RUN_CODEC, past_views, reach, clock),
        PastBoards(event_log, BoardTable(settings.partition, event_log.tracking), reach, clock),
        WorkerTable(settings.partition, event_log.tracking),
        PastQueues(QueueTable(settings.partition, event_log.tracking), reach),
    )
    beside = _Beside(listing, past, task_logs, ViewCalls(views, ports.ids))
    collecting = asyncio.create_task(keep_collecting(), name="garbage")
    try:
        return await _serve(kernel, beside, settings, stopped)
    except Refusal as refusal:
        log.error("kernel.failed", reason=refusal.reason_word, message=str(refusal))
        return 1
    finally:
        collecting.cancel()
        await kernel.stop()
        await task_logs.close()
        await log_table.close()
        await blob_table.close()
        await key_table.close()
        await event_log.close()


@dataclass(frozen=True, slots=True)
class _Beside:
    """What is served beside the kernel, without its ownership."""

    listing: RunListing
    past: Past
    task_logs: TaskLogs
    views: ViewCalls


async def _serve(
    kernel: Kernel, beside: _Beside, settings: Settings, stopped: asyncio.Event
) -> int:
    registry = Registry()
    add_metrics(registry, kernel)
    add_task_log_metrics(registry, beside.task_logs)
    server = RpcServer(
        ServerSettings(address=settings.listen_address),
        tokens=_tokens(settings),
        registry=registry,
    )
    followers = Followers.of(kernel, settings.follow)
    add_follower_metrics(registry, followers)
    add_servicers(
        server, kernel, beside.listing, beside.past, beside.task_logs, followers=followers
    )
    watch = add_views(server, registry, beside.views, settings.partition)
    # Owned before the port opens: a caller that reaches the kernel finds its runs.
    await kernel.start()
    port = await server.start()
    readiness = Readiness(server, kernel)
    await readiness.start()
    host = settings.listen_address.rpartition(":")[0]
    _write_address(settings, f"{host}:{port}")
    structlog.get_logger("stretto.kernel").info("kernel.listening", address=f"{host}:{port}")
    metrics = await _serve_metrics(settings, registry)
    watching = asyncio.create_task(watch.run(), name="view-watch")
    await stopped.wait()
    watching.cancel()
    if metrics is not None:
        metrics.close()
    await readiness.drain(settings.drain_grace_s)
    return 0


async def _run_projector(settings: Settings) -> int:
    """Keep the views and relay the log until a signal; servers that are down are waited for."""
    # What only this role needs is not loaded by the kernel, whose start is a budget.
    from stretto_kernel.adapters.blob_reference_table import BlobReferenceTables  # noqa: PLC0415
    from stretto_kernel.adapters.chore_board import ChoreBoardTable  # noqa: PLC0415
    from stretto_kernel.adapters.relay_board import RelayBoardTable  # noqa: PLC0415
    from stretto_kernel.adapters.view_tables import ViewTables  # noqa: PLC0415
    from stretto_kernel.app import blob_sweep  # noqa: PLC0415
    from stretto_kernel.app.chores import Chore, keep_doing  # noqa: PLC0415
    from stretto_kernel.app.run_key_sweep import RunKeySweep  # noqa: PLC0415
    from stretto_kernel.projections.projector import Projector  # noqa: PLC0415
    from stretto_kernel.projections.registry import VIEWS  # noqa: PLC0415

    os.nice(PROJECTOR_NICENESS)
    log = structlog.get_logger("stretto.kernel.projector")
    stopped = _stop_on_signals()
    try:
        event_log = await PostgresLog.open(settings.postgres_dsn, settings.partition)
    except Refusal as refusal:
        log.error("projector.failed", reason=refusal.reason_word, message=str(refusal))
        return 1
    store = ViewTables(settings.partition, event_log.tracking)
    fresh = FreshFoldTable(settings.postgres_dsn, settings.partition, event_log.tracking)
    relaying = None
    if settings.nats_url:
        relaying = _new_relaying(event_log, RelayBoardTable(store), settings)
    snapshot_table = SnapshotTable(settings.partition, event_log.tracking)
    projector = Projector(
        event_log,
        store,
        VIEWS,
        RUN_CODEC,
        fresh=fresh,
        snapshots=Snapshots(snapshot_table, event_log, RUN_CODEC),
        rebuilt=(lambda _: None) if relaying is None else relaying.mirror.views_rebuilt,
    )
    followers = [asyncio.create_task(projector.run(), name="projector")]
    blob_table = BlobTable(settings.postgres_dsn, SystemClock())
    tables = BlobReferenceTables(settings.postgres_dsn)
    key_table = RunKeyTable(settings.postgres_dsn)
    keys = RunKeySweep(key_table, event_log)
    sweep = partial(blob_sweep.sweep_all, blob_table, tables, keys, SystemClock())
    log_sweep, task_logs = _new_task_log_sweep(settings)
    chores = ChoreBoardTable(store)
    for chore in (Chore("blob-sweep", sweep, blob_sweep.INTERVAL_S), task_logs):
        followers.append(asyncio.create_task(keep_doing(chore, chores), name=chore.name))
    if relaying is not None:
        followers.append(asyncio.create_task(relaying.relay.run(), name="relay"))
        followers.append(asyncio.create_task(relaying.mirror.keep(), name="mirror"))
    ended = asyncio.create_task(stopped.wait())
    log.info("projector.following", relaying=bool(settings.nats_url))
    await asyncio.wait([*followers, ended], return_when=asyncio.FIRST_COMPLETED)
    failed = [follower for follower in followers if follower.done()]
    for follower in failed:
        # A bug of ours: better no follower, restarted, than a view that looks alive.
        log.error(f"{follower.get_name()}.failed", exc_info=follower.exception())
    for follower in followers:
        follower.cancel()
    await asyncio.wait(followers)
    if relaying is not None:
        await relaying.bus.close()
    await blob_table.close()
    await key_table.close()
    await tables.close()
    await log_sweep.close()
    await event_log.close()
    return 1 if failed else 0


def _new_task_log_sweep(settings: Settings) -> tuple[TaskLogSweep, Chore]:
    from stretto_kernel.adapters.task_log_sweep import TaskLogSweep  # noqa: PLC0415
    from stretto_kernel.app.chores import Chore  # noqa: PLC0415
    from stretto_kernel.tasklog import retention  # noqa: PLC0415

    days, ended_days = settings.task_log_keep_days, settings.task_log_ended_keep_days
    kept = retention.Kept(days=days, ended_days=ended_days)
    sweep = TaskLogSweep(settings.postgres_dsn, settings.partition)
    once = partial(retention.sweep_once, sweep, SystemClock(), kept)
    return sweep, Chore("task-log-sweep", once, retention.INTERVAL_S)


class _Relaying(NamedTuple):
    """What feeds the bus, and the connection it has together."""

    bus: JetStreamBus
    mirror: BoardMirror
    relay: Relay


def _new_relaying(event_log: PostgresLog, board: RelayBoard, settings: Settings) -> _Relaying:
    from stretto_core.bus.jetstream import JetStreamBus  # noqa: PLC0415
    from stretto_core.bus.jetstream_buckets import JetStreamBuckets  # noqa: PLC0415

    from stretto_kernel.adapters.newest_boards import NewestBoards  # noqa: PLC0415
    from stretto_kernel.relay.board_mirror import BoardMirror  # noqa: PLC0415
    from stretto_kernel.relay.relay import Relay  # noqa: PLC0415

    bus = JetStreamBus(settings.nats_url)
    view = NewestBoards(settings.partition, event_log.tracking)
    mirror = BoardMirror(event_log, view, JetStreamBuckets(bus))
    return _Relaying(bus, mirror, Relay(event_log, bus, board, mirror))


def _tokens(settings: Settings) -> TokenFile | TokenTable:
    if settings.tokens_file is None:
        return TokenTable()
    return TokenFile(settings.tokens_file.parent, asyncio.get_running_loop().time)


async def _serve_metrics(settings: Settings, registry: Registry) -> asyncio.Server | None:
    if not settings.metrics_address:
        return None
    # Loaded after the kernel serves: its start is a budget.
    from stretto_core.telemetry.exposition import serve_metrics  # noqa: PLC0415

    host, _, port = settings.metrics_address.rpartition(":")
    try:
        return await serve_metrics(registry, host, int(port))
    except OSError as error:
        # Runs go on without figures; a kernel that ended here would be started again for ever.
        structlog.get_logger("stretto.kernel").error(
            "metrics.not_served", address=settings.metrics_address, error=str(error)
        )
        return None


def _write_address(settings: Settings, address: str) -> None:
    if settings.address_file is not None:
        write_atomically(settings.address_file, f"{address}\n".encode())


def _stop_on_signals() -> asyncio.Event:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    return stopped


if __name__ == "__main__":
    main()
