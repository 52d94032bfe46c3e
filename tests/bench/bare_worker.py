"""A worker without bodies: succeeds at once with everything assigned, many outcomes in a frame.

`python -m tests.bench.bare_worker --address A --slots N`. What is measured with it is the suite's
cost per task, not that of a worker's Python.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import AsyncIterator

import uvloop
from stretto.common.v1.payload_pb2 import Payload
from stretto.work.v1 import work_pb2
from stretto.work.v1 import work_service_pb2 as pb
from stretto.work.v1.work_service_pb2_grpc import WorkServiceStub
from stretto_core.ids.system import SystemIds
from stretto_core.rpc.channel import open_channel

EXECUTOR = "bench.noop"


async def work(
    address: str, name: str, slots: int, *, frames_max: int | None = None
) -> list[float]:
    """Work until killed, or for so many frames; return when each came, in seconds."""
    frames: asyncio.Queue[pb.WorkRequest] = asyncio.Queue()
    hello = work_pb2.Hello(
        worker_id=name,
        session_id=SystemIds().uuid7(),
        executors=[EXECUTOR],
        slot_count=slots,
    )
    frames.put_nowait(pb.WorkRequest(hello=hello, credit_total_count=slots))
    done_count = 0
    came_s: list[float] = []
    succeeded = work_pb2.OutcomeSucceeded(result=Payload(json="1"))

    async def outgoing() -> AsyncIterator[pb.WorkRequest]:
        while True:
            yield await frames.get()

    async with open_channel(address) as channel:
        async for answer in WorkServiceStub(channel).Work(outgoing()):
            if not answer.assignments:
                continue
            came_s.append(time.perf_counter())
            done_count += len(answer.assignments)
            outcomes = [
                work_pb2.Outcome(token=assignment.token, succeeded=succeeded)
                for assignment in answer.assignments
            ]
            frames.put_nowait(
                pb.WorkRequest(credit_total_count=slots + done_count, outcomes=outcomes)
            )
            if len(came_s) == frames_max:
                break
    return came_s


def main() -> None:
    """Work until killed."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--address", required=True)
    arguments.add_argument("--slots", type=int, default=64)
    arguments.add_argument("--name", required=True)
    given = arguments.parse_args()
    uvloop.run(work(given.address, given.name, given.slots))


if __name__ == "__main__":
    main()
