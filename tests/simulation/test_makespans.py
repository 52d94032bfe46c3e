"""Traces at recorded speed on virtual time: with slots for all, a run takes its critical path.

The kernel, the worker's runtime and its sleep executor are the real ones; only the network and the
clock are simulated, so the figure is exact and says what orchestration itself adds.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from stretto.run.v1 import run_pb2
from stretto.run.v1 import run_service_pb2 as pb
from stretto.work.v1.work_service_pb2 import WorkRequest, WorkResponse
from stretto_core.clock import NS_PER_S
from stretto_core.eventlog.memory import MemoryStore
from stretto_core.ids import Partition
from stretto_core.ids.seeded import SeededIds
from stretto_core.testing.connection import ConnectionEnd, ConnectionLost
from stretto_core.testing.network import Network
from stretto_core.testing.process import Process
from stretto_core.testing.seeded import random_for
from stretto_core.testing.trace import Trace
from stretto_core.testing.virtual_clock import VirtualClock
from stretto_core.testing.virtual_loop import VirtualLoop
from stretto_kernel.adapters.memory_blobs import MemoryBlobs
from stretto_kernel.adapters.memory_run_keys import MemoryRunKeys
from stretto_kernel.app.run_keys import RunKeys
from stretto_sdk.imports import Imported
from stretto_sdk.plan_form import parse_run
from stretto_sdk.slices import slices_of
from stretto_sdk.worker.effects import SessionSettings
from stretto_sdk.worker.runtime import WorkerRuntime
from stretto_sdk.worker.sleep_executor import SleepExecutor

from tests.simulation.sim_kernel import SimKernel
from tests.simulation.sim_views import MemoryViews
from tests.simulation.storms import LogStorm
from tests.traces import TRACES, expectations, imported_trace

SEED = 1
SLOTS = 2_000
OVERHEAD_SHARE_MAX = 0.1
WAIT_S, TIMEOUT_S = 60, 90.0


@pytest.mark.parametrize("name", TRACES)
def test_the_makespan_is_the_critical_path(workflows: Path, name: str) -> None:
    imported = imported_trace(workflows, name, time_scale=1.0)
    expected_s = expectations(workflows)[name].critical_path_s
    loop = VirtualLoop(random_for(SEED, "order"))
    took_s = loop.run(_makespan_s(loop, imported))
    assert not loop.failures
    assert expected_s <= took_s + 0.001
    assert took_s <= expected_s * (1 + OVERHEAD_SHARE_MAX)


async def _makespan_s(loop: VirtualLoop, imported: Imported) -> float:
    """Return the virtual seconds from the start's answer to the recorded end."""
    network = Network(random_for(SEED, "network"))
    clock = VirtualClock(loop)
    kernel = SimKernel(
        Process(loop, "kernel", host="kernel"),
        network,
        clock,
        SeededIds(SEED, clock),
        address="kernel",
        store=MemoryStore(Partition("p0")),
        index=MemoryViews(),
        blobs=MemoryBlobs(),
        keys=RunKeys(MemoryRunKeys()),
        log_faults=LogStorm(random_for(SEED, "log"), Trace(loop), share=0.0),
        exclusive=True,
        queue_limits={},
    )
    kernel.start()
    await kernel.serves.wait()
    worker = Process(loop, "worker", host="worker")
    working = worker.spawn(_work(worker, network, clock))
    client = Process(loop, "client", host="client")
    running = client.spawn(_run(client, network, clock, imported))
    await asyncio.wait((working, running), return_when=asyncio.FIRST_COMPLETED)
    assert running.done(), working.result()
    return running.result()


async def _work(process: Process, network: Network, clock: VirtualClock) -> None:
    runtime = WorkerRuntime(
        SessionSettings(
            worker_id="sleeper",
            session_id=SeededIds(SEED + 1, clock).uuid7(),
            executors=("sleep",),
            slot_count=SLOTS,
        ),
        dialer=_Dialer(process, network),
        executors={"sleep": SleepExecutor()},
        clock=clock,
    )
    await runtime.run()


async def _run(
    process: Process, network: Network, clock: VirtualClock, imported: Imported
) -> float:
    graph = parse_run(imported.plan).graph
    slices = slices_of(graph)
    del graph.tasks[:]
    graph.tasks.extend(slices[0].tasks)
    graph.growing = len(slices) > 1
    start = pb.StartRunRequest(request_id="start", task_graph=graph)
    begin_ns = clock.mono_ns()
    run = (await network.call(process, "kernel", "StartRun", start, timeout_s=TIMEOUT_S)).run
    for index, piece in enumerate(slices[1:], 1):
        grow = pb.AddTasksRequest(name=run.name, request_id=f"slice-{index}", tasks=piece.tasks)
        grow.sealed = index == len(slices) - 1
        await network.call(process, "kernel", "AddTasks", grow, timeout_s=TIMEOUT_S)
    # The same start again changes nothing and is answered when the run ends.
    start.wait_timeout.FromSeconds(WAIT_S)
    while run.state == run_pb2.RUN_STATE_RUNNING:
        run = (await network.call(process, "kernel", "StartRun", start, timeout_s=TIMEOUT_S)).run
    assert run.state == run_pb2.RUN_STATE_SUCCEEDED
    assert run.task_counts.succeeded_count == len(imported.plan["tasks"])  # type: ignore[arg-type]
    return (clock.mono_ns() - begin_ns) / NS_PER_S


class _Dialer:
    """Opens streams of the simulated network for the worker's runtime."""

    def __init__(self, process: Process, network: Network) -> None:
        self._process = process
        self._network = network

    async def dial(self) -> _Link:
        return _Link(await self._network.connect(self._process, "kernel", "Work"))


class _Link:
    """A stream of the simulated network as the runtime's port."""

    def __init__(self, stream: ConnectionEnd[WorkRequest, WorkResponse]) -> None:
        self._stream = stream

    async def send(self, frame: WorkRequest) -> None:
        self._stream.send(frame)

    async def receive(self) -> WorkResponse:
        frame = await self._stream.receive()
        if frame is None:
            raise ConnectionLost("the kernel ended the stream")
        return frame

    async def close(self) -> None:
        self._stream.close()
