"""views, rebuild and relay: the log as it stands, followed by the projector's own process.

The log holds many small runs and a large one. `views`: all views are dropped and the projector
starts; counted from the first batch it stored. `rebuild`: asked of the kernel, from the moment the
projector began until the fresh views were proven and in place. `relay`: NATS is wiped and the views
have nothing to do; from the first message that NATS has until the last.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import suppress

import grpc
import nats
import psycopg
from nats.js.errors import NotFoundError
from stretto.projection.v1 import projection_service_pb2 as pb
from stretto.projection.v1.projection_service_pb2_grpc import ProjectionServiceStub
from stretto_core.bus.jetstream import STREAM
from stretto_core.rpc.channel import open_channel
from stretto_kernel.relay.place import RELAY

from tests.bench.scale import Scale
from tests.bench.speeds import Measurement, say
from tests.bench.stack import BARE_WORKER, Layout, Stack, running
from tests.jetstream import wipe
from tests.waiting import passed

LOOK_S = 0.1
RELAY_LOOK_S = 0.05


async def views(scale: Scale, wanted: list[str]) -> AsyncIterator[Measurement]:
    """All figures on one log, in turn."""
    layout = Layout(worker=BARE_WORKER, slots=500)
    async with running(layout) as (stack, client):
        await client.do("bare", runs=scale.view_runs, outstanding=scale.outstanding)
        await client.do("large", tasks=scale.view_tasks)
        settings: dict[str, object] = {"runs": scale.view_runs, "large_run_tasks": scale.view_tasks}
        async with open_channel(stack.address) as channel:
            for _ in range(scale.rounds):
                await stack.projector.stop()
                _drop_views(stack)
                await stack.projector.start()
                rate = await _caught_up(stack, channel)
                if "views" in wanted:
                    yield "views", {"events_per_s": rate}, settings
                if "rebuild" in wanted:
                    yield "rebuild", {"events_per_s": await _rebuilt(stack, channel)}, settings
                if "relay" in wanted:
                    await stack.projector.stop()
                    await wipe(stack.nats.url())
                    _forget_follower(stack, RELAY)
                    await stack.projector.start()
                    yield "relay", {"events_per_s": await _relayed(stack)}, settings


def _drop_views(stack: Stack) -> None:
    with psycopg.connect(stack.postgres.dsn(), autocommit=True) as connection:
        tables = connection.execute(
            "SELECT relname FROM pg_class WHERE relkind = 'r'"
            " AND relnamespace = 'stretto_p0'::regnamespace"
            " AND relname NOT IN ('events', 'tracking') AND relname NOT LIKE 'task_log%'"
        ).fetchall()
        for (name,) in tables:
            connection.execute(f'DROP TABLE stretto_p0."{name}"'.encode())
        connection.execute(
            "DELETE FROM stretto_p0.tracking"
            " WHERE application_name LIKE '%%\\_v_' AND application_name <> %s",
            [RELAY],
        )


def _forget_follower(stack: Stack, name: str) -> None:
    with psycopg.connect(stack.postgres.dsn(), autocommit=True) as connection:
        connection.execute("DELETE FROM stretto_p0.tracking WHERE application_name = %s", [name])


async def _relayed(stack: Stack) -> float:
    """Return how many events a second went out, by the messages that NATS has."""
    client = await nats.connect(stack.nats.url())
    stream = client.jetstream()
    began_s = ended_s = 0.0
    before_count = 0
    while not _has_relayed_all(stack):
        with suppress(NotFoundError):  # Made again by the relay.
            count = (await stream.stream_info(STREAM)).state.messages
            if count > before_count:
                before_count, ended_s = count, time.perf_counter()
                began_s = began_s or ended_s
        await passed(RELAY_LOOK_S)
    await client.close()
    return _event_count(stack, 0) / max(ended_s - began_s, 1e-3)


def _has_relayed_all(stack: Stack) -> bool:
    with psycopg.connect(stack.postgres.dsn()) as connection:
        row = connection.execute(
            "SELECT (SELECT max(notification_id) FROM stretto_p0.events) ="
            " (SELECT max(notification_id) FROM stretto_p0.tracking WHERE application_name = %s)",
            [RELAY],
        ).fetchone()
        return bool(row and row[0])


def _event_count(stack: Stack, after_position: int) -> int:
    with psycopg.connect(stack.postgres.dsn()) as connection:
        row = connection.execute(
            "SELECT count(*) FROM stretto_p0.events WHERE notification_id > %s", [after_position]
        ).fetchone()
        assert row is not None
        return int(row[0])


async def _caught_up(stack: Stack, channel: grpc.aio.Channel) -> float:
    stub = ProjectionServiceStub(channel)
    began_s, first_position = 0.0, 0
    while True:
        listed = await stub.ListViews(pb.ListViewsRequest())
        positions = [view.position for view in listed.views]
        if not began_s and min(positions) > 0:
            began_s, first_position = time.perf_counter(), min(positions)
        if min(positions) == listed.log_position:
            elapsed_s = max(time.perf_counter() - began_s, 1e-3)
            return _event_count(stack, first_position) / elapsed_s
        await passed(LOOK_S)  # The one who asks takes none of the machine from the others.


async def _rebuilt(stack: Stack, channel: grpc.aio.Channel) -> float:
    began_s = 0.0
    call = ProjectionServiceStub(channel).RebuildViews(pb.RebuildViewsRequest())
    last = pb.FreshFold()
    async for answer in call:
        last = answer.progress
        if not began_s and last.phase != pb.FOLD_PHASE_ASKED:
            began_s = time.perf_counter()
    elapsed_s = max(time.perf_counter() - began_s, 1e-3)
    assert not last.failure and all(proof.equal for proof in last.proofs), last.failure
    say(
        f"rebuild: folded at {last.events_per_s:,.0f} events/s,"
        f" exchanged in {last.swap.ToNanoseconds() / 1e6:.1f} ms"
    )
    return _event_count(stack, 0) / elapsed_s
