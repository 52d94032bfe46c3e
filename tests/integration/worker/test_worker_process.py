"""A real worker service against a kernel double: death, drain, takeover, control."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from pathlib import Path

import grpc
import pytest
from stretto.work.v1 import work_pb2
from stretto.worker.v1 import worker_control_service_pb2 as messages
from stretto.worker.v1 import worker_control_service_pb2_grpc as control
from stretto_core.errors import FailedPrecondition, PermissionDenied

from tests.integration.worker import bodies
from tests.integration.worker.conftest import WorkerProcess, environment
from tests.integration.worker.kernel_double import KernelDouble
from tests.integration.worker.processes import is_alive, pids_in
from tests.waiting import until


class SessionReplaced(FailedPrecondition):
    reason = "SESSION_REPLACED"


def sleeper(pids: Path) -> str:
    """Arguments of a command that has a child and writes both process ids down."""
    return json.dumps({"argv": ["sh", "-c", f"sleep 600 & echo $$ $! >> {pids}; wait"]})


async def test_a_killed_worker_leaves_no_process_behind(
    kernel: KernelDouble, worker_process: WorkerProcess, tmp_path: Path
) -> None:
    pids = tmp_path / "pids"
    kernel.assign("a", executor="process", arguments=sleeper(pids))
    code = "import os,time\nif os.fork() == 0:\n os.setsid()\n"
    code += f" open({str(pids)!r}, 'a').write(f'{{os.getpid()}}\\n')\n time.sleep(600)\n"
    code += "time.sleep(600)"
    escapes = json.dumps({"argv": [sys.executable, "-c", code]})
    kernel.assign("b", executor="process", arguments=escapes)
    await until(lambda: len(pids_in(pids)) == 3)
    worker_process.signal(signal.SIGKILL)
    await worker_process.wait()
    await until(lambda: not any(is_alive(pid) for pid in pids_in(pids)))


async def test_sigterm_lets_a_body_finish_and_says_goodbye(
    kernel: KernelDouble, worker_process: WorkerProcess, tmp_path: Path
) -> None:
    started, go_on = tmp_path / "started", tmp_path / "go_on"
    script = f"touch {started}; while [ ! -e {go_on} ]; do sleep 0.01; done; echo 1"
    arguments = json.dumps({"argv": ["sh", "-c", script]})
    kernel.assign("a", executor="process", arguments=arguments)
    await until(started.exists)
    worker_process.signal(signal.SIGTERM)
    await kernel.seen(lambda each: each.frames[-1].draining)
    kernel.assign("late", executor="process", arguments=arguments)
    assert (await kernel.outcome("late")).HasField("released")
    go_on.touch()
    assert (await kernel.outcome("a")).succeeded.result.json == "1"
    assert await worker_process.wait() == 0
    assert kernel.goodbye_count == 1


async def test_a_thread_that_a_body_blocks_does_not_keep_the_process(
    kernel: KernelDouble, worker_process: WorkerProcess
) -> None:
    function = f"{bodies.__name__}:{bodies.block_a_thread.__name__}"
    kernel.assign("a", arguments=json.dumps({"function": function}))
    await kernel.seen(lambda each: any(r.HasField("details") for r in each.renewals))
    worker_process.signal(signal.SIGTERM)
    kernel.signal("a", work_pb2.SIGNAL_KIND_INTERRUPT)
    assert (await kernel.outcome("a")).HasField("released")
    async with asyncio.timeout(60):
        assert await worker_process.wait() == 0


async def test_a_function_it_imports_may_block(
    kernel: KernelDouble, worker_process: WorkerProcess
) -> None:
    function = f"{bodies.__name__}:{bodies.add_in_a_thread.__name__}"
    kernel.assign("a", arguments=json.dumps({"function": function}), left="2", right="3")
    assert (await kernel.outcome("a")).succeeded.result.json == "5"


async def test_a_revoked_lease_ends_its_processes(
    kernel: KernelDouble, worker_process: WorkerProcess, tmp_path: Path
) -> None:
    pids = tmp_path / "pids"
    kernel.assign("a", executor="process", arguments=sleeper(pids))
    await until(lambda: len(pids_in(pids)) == 2)
    kernel.signal("a", work_pb2.SIGNAL_KIND_REVOKE)
    await until(lambda: not any(is_alive(pid) for pid in pids_in(pids)))
    assert is_alive(worker_process.pid)
    assert not kernel.outcomes


@pytest.mark.parametrize(
    ("refusal", "status"),
    [
        (SessionReplaced("a newer process is connected"), 4),
        (PermissionDenied("this token may not work"), 1),
    ],
)
async def test_a_refused_worker_ends_its_bodies_and_exits_with_a_status_of_its_own(
    kernel: KernelDouble,
    worker_process: WorkerProcess,
    tmp_path: Path,
    refusal: FailedPrecondition,
    status: int,
) -> None:
    pids = tmp_path / "pids"
    kernel.assign("a", executor="process", arguments=sleeper(pids))
    await until(lambda: len(pids_in(pids)) == 2)
    kernel.refusal = refusal
    kernel.cut()
    assert await worker_process.wait() == status
    await until(lambda: not any(is_alive(pid) for pid in pids_in(pids)))


async def test_the_control_service_says_who_and_what_and_drains(
    kernel: KernelDouble, worker_process: WorkerProcess, tmp_path: Path
) -> None:
    pids = tmp_path / "pids"
    kernel.assign("a", executor="process", arguments=sleeper(pids))
    await until(lambda: len(pids_in(pids)) == 2)
    (hello,) = kernel.hellos
    async with grpc.aio.insecure_channel(hello.control_address) as channel:
        stub = control.WorkerControlServiceStub(channel)
        identity = await stub.Identify(messages.IdentifyRequest())
        assert identity.worker_id == hello.worker_id
        assert identity.session_id == hello.session_id
        described = await stub.DescribeWorker(messages.DescribeWorkerRequest())
        assert [(lease.work_item, lease.epoch) for lease in described.leases] == [("a", 1)]
        assert set(described.executors) == {"http", "process", "python", "sleep"}
        assert dict(described.labels) == {"zone": "a"}
        assert described.connected and not described.draining
        assert (await stub.DrainWorker(messages.DrainWorkerRequest())).lease_count == 1
    kernel.signal("a", work_pb2.SIGNAL_KIND_INTERRUPT)
    assert (await kernel.outcome("a")).HasField("released")
    assert await worker_process.wait() == 0


async def test_a_restarted_worker_is_the_same_worker_in_a_later_session(
    kernel: KernelDouble, worker_process: WorkerProcess, tmp_path: Path
) -> None:
    worker_process.signal(signal.SIGKILL)
    await worker_process.wait()
    again = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "stretto_worker",
        env={
            **environment(),
            "STRETTO_KERNEL_ADDRESS": kernel.address,
            "STRETTO_DATA_DIR": str(tmp_path),
        },
    )
    try:
        await kernel.seen(lambda each: len(each.hellos) == 2)
        first, second = kernel.hellos
        assert first.worker_id == second.worker_id
        assert first.session_id < second.session_id
    finally:
        again.kill()
        await again.wait()


async def test_a_wrong_setting_is_named(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "stretto_worker",
        env={**environment(), "STRETTO_WORKER_SLOTS": "many", "STRETTO_DATA_DIR": str(tmp_path)},
        stderr=asyncio.subprocess.PIPE,
    )
    _, errors = await process.communicate()
    assert process.returncode == 2
    assert b"STRETTO_WORKER_SLOTS: 'many'" in errors
