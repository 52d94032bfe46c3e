"""W1 in small: independent one-task runs through a real kernel, one unary StartRun each.

`python -m tests.bench.quick_w1 [--runs N] [--outstanding N] [--profile FILE]` prints one JSON line.
Client, worker and kernel are processes of their own, on an embedded PostgreSQL with fsync on. The
clock runs from the first submit to the last RunSucceeded seen by a subscriber. No assertion on
time.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
from stretto.common.v1.payload_pb2 import Payload
from stretto.eventlog.v1 import event_log_service_pb2 as log_pb
from stretto.eventlog.v1.event_log_service_pb2_grpc import EventLogServiceStub
from stretto.run.v1 import plan_pb2
from stretto.run.v1 import run_service_pb2 as run_pb
from stretto.run.v1.run_service_pb2_grpc import RunServiceStub
from stretto.work.v1 import work_pb2
from stretto.work.v1 import work_service_pb2 as pb
from stretto.work.v1.work_service_pb2_grpc import WorkServiceStub
from stretto_core.ids.system import SystemIds
from stretto_core.localstack.postgres import FAST, EmbeddedPostgres
from stretto_core.rpc.channel import open_channel

from tests.waiting import until

SLOTS = 64
WARM_RUNS = 200
SUCCEEDED = "stretto.run.v1.RunSucceeded"


async def work(address: str) -> None:
    """Succeed at once with everything assigned."""
    frames: asyncio.Queue[pb.WorkRequest] = asyncio.Queue()
    hello = work_pb2.Hello(
        worker_id="bench",
        session_id=SystemIds().uuid7(),
        executors=["bench.noop"],
        slot_count=SLOTS,
    )
    frames.put_nowait(pb.WorkRequest(hello=hello, credit_total_count=SLOTS))
    done_count = 0

    async def outgoing() -> AsyncIterator[pb.WorkRequest]:
        while True:
            yield await frames.get()

    async with open_channel(address) as channel:
        async for answer in WorkServiceStub(channel).Work(outgoing()):
            if not answer.assignments:
                continue
            done_count += len(answer.assignments)
            result = work_pb2.OutcomeSucceeded(result=Payload(json="1"))
            outcomes = [
                work_pb2.Outcome(token=assignment.token, succeeded=result)
                for assignment in answer.assignments
            ]
            total = SLOTS + done_count
            frames.put_nowait(pb.WorkRequest(credit_total_count=total, outcomes=outcomes))


async def submit(address: str, runs: int, outstanding: int, *, before: int = 0) -> float:
    """Start the runs and return the seconds until the last was seen to succeed.

    before: how many runs had succeeded already.
    """
    ids = SystemIds()
    graph = plan_pb2.TaskGraph(tasks=[plan_pb2.TaskSpec(name="a", executor="bench.noop")])
    async with open_channel(address) as channel, open_channel(address) as reading:
        stub = RunServiceStub(channel)
        follower = asyncio.create_task(_follow(reading, before + runs))
        left = iter(range(runs))
        started_s = time.perf_counter()

        async def caller() -> None:
            for _ in left:
                await stub.StartRun(
                    run_pb.StartRunRequest(request_id=ids.uuid7(), task_graph=graph)
                )

        await asyncio.gather(*(caller() for _ in range(outstanding)))
        await follower
        return time.perf_counter() - started_s


async def _follow(channel: grpc.aio.Channel, runs: int) -> None:
    left = runs
    async for batch in EventLogServiceStub(channel).Subscribe(log_pb.SubscribeRequest()):
        left -= sum(logged.event.type == SUCCEEDED for logged in batch.events)
        if left <= 0:
            return


async def bench(runs: int, outstanding: int, profile: str) -> None:
    """Run everything and print the figures."""
    directory = Path(tempfile.mkdtemp(prefix="stretto-bench-"))
    directory.chmod(0o711)
    server = EmbeddedPostgres(directory=directory)
    await server.start()
    address_file = directory / "address"
    environment = {
        **os.environ,
        "STRETTO_POSTGRES_DSN": server.dsn(),
        "STRETTO_ADDRESS_FILE": str(address_file),
        "STRETTO_DRAIN_GRACE_S": "0",
    }
    command = ["-m", "stretto_kernel"]
    if profile:
        command = ["-m", "cProfile", "-o", profile, *command]
    kernel = await asyncio.create_subprocess_exec(
        sys.executable, *command, env=environment, stderr=asyncio.subprocess.DEVNULL
    )
    worker = None
    try:
        await until(address_file.exists)
        address = address_file.read_text().strip()
        worker = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.bench.quick_w1", "--worker", address
        )
        # Warm caches, connections and code first.
        await submit(address, WARM_RUNS, outstanding)
        elapsed_s = await submit(address, runs, outstanding, before=WARM_RUNS)
    finally:
        if worker is not None:
            worker.send_signal(signal.SIGKILL)
            await worker.wait()
        kernel.send_signal(signal.SIGTERM)
        await kernel.wait()
        await server.stop(FAST)
        shutil.rmtree(directory, ignore_errors=True)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    sys.stdout.write(
        json.dumps(
            {
                "figure": "W1",
                "runs": runs,
                "outstanding": outstanding,
                "tasks_per_s": round(runs / elapsed_s),
                "elapsed_s": round(elapsed_s, 2),
                "children_cpu_s": round(used.ru_utime + used.ru_stime, 2),
            }
        )
        + "\n"
    )


def main() -> None:
    """Read the command line."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--runs", type=int, default=2_000)
    arguments.add_argument("--outstanding", type=int, default=64)
    arguments.add_argument("--profile", default="")
    arguments.add_argument("--worker", default="")
    given = arguments.parse_args()
    if given.worker:
        asyncio.run(work(given.worker))
    else:
        asyncio.run(bench(given.runs, given.outstanding, given.profile))


if __name__ == "__main__":
    main()
