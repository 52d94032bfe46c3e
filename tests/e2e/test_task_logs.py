"""What tasks write, through a suite of real processes that die: exact, followed, kept."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from stretto_sdk import Plan, Run

from tests.e2e.conftest import BIN, ROOT, Gate, Suite, until_true

PYTHON = sys.executable


def plan_of(**tasks: dict[str, Any]) -> Plan:
    plan = Plan("logs")
    for name, fields in tasks.items():
        plan.task(name, executor="process", **fields)
    return plan


def program(code: str, *arguments: str, **more: Any) -> dict[str, Any]:
    argv = [PYTHON, "-c", code, *arguments]
    return {"arguments": {"argv": argv, "output": "none"}, **more}


def logs(suite: Suite, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    done = subprocess.run(
        [BIN / "stretto", "logs", *arguments],
        env=suite.environ,
        cwd=ROOT,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done


async def ended(suite: Suite, plan: Plan) -> Run:
    async with suite.client() as client:
        run = await client.wait(await client.start(plan))
    assert run.state == "SUCCEEDED", run.failure
    return run


async def test_any_bytes_come_back_as_they_were(suite: Suite) -> None:
    code = "import sys; sys.stdout.buffer.write(bytes(range(256)) * 400); sys.stderr.write('why')"
    run = await ended(suite, plan_of(binary=program(code)))
    done = logs(suite, run.run_id, "binary")
    assert done.stdout == bytes(range(256)) * 400
    assert done.stderr == b"why"
    shown = [json.loads(line) for line in logs(suite, run.run_id, "--json").stdout.splitlines()]
    assert {line["stream"] for line in shown} == {"stdout", "stderr"}
    assert all("base64" in line or "text" in line for line in shown)


async def test_a_hundred_thousand_lines(suite: Suite) -> None:
    code = "for number in range(100_000): print('line', number)"
    run = await ended(suite, plan_of(many=program(code)))
    expected = b"".join(b"line %d\n" % number for number in range(100_000))
    assert logs(suite, run.run_id, "many").stdout == expected
    tail = logs(suite, run.run_id, "--tail", "2").stdout
    assert tail == b"many | line 99998\nmany | line 99999\n"


async def test_ten_megabytes_in_one_line(suite: Suite) -> None:
    run = await ended(suite, plan_of(wide=program("print('x' * 10_000_000, end='')")))
    assert logs(suite, run.run_id, "wide").stdout == b"x" * 10_000_000


async def test_lines_of_many_tasks_stay_whole(suite: Suite) -> None:
    code = (
        "import sys\n"
        "for number in range(200):\n"
        "    print(sys.argv[1], end=' ', flush=True); print(number, flush=True)"
    )
    run = await ended(suite, plan_of(a=program(code, "a"), bb=program(code, "bb")))
    lines = logs(suite, run.run_id).stdout.decode().splitlines()
    said = [tuple(part.strip() for part in line.split("|")) for line in lines]
    for task in ("a", "bb"):
        assert [text for name, text in said if name == task] == [
            f"{task} {number}" for number in range(200)
        ]


async def test_following_goes_on_over_a_killed_kernel(suite: Suite, tmp_path: Path) -> None:
    gate = Gate(tmp_path)
    code = (
        "import os, sys, time\n"
        "print('before', flush=True)\n"
        "while not os.path.exists(sys.argv[1]): time.sleep(0.01)\n"
        "print('after', flush=True)"
    )
    async with suite.client() as client:
        run = await client.start(plan_of(a=program(code, str(tmp_path / "open"))))
        following = await asyncio.create_subprocess_exec(
            BIN / "stretto", "logs", run.run_id, "a", "-f", env=suite.environ, cwd=ROOT,
            stdout=subprocess.PIPE,
        )  # fmt: skip
        assert following.stdout is not None
        assert await following.stdout.readline() == b"before\n"
        suite.signal("kernel", signal.SIGKILL)
        gate.open()
        assert await following.stdout.read() == b"after\n"
        assert await following.wait() == 0
        assert (await client.wait(run)).state == "SUCCEEDED"


async def test_a_killed_workers_output_is_kept_beside_the_next_attempts(
    suite: Suite, tmp_path: Path
) -> None:
    code = (
        "import os, sys, time\n"
        "print('attempt', os.environ['STRETTO_ATTEMPT'], flush=True)\n"
        "while not os.path.exists(sys.argv[1]): time.sleep(0.01)\n"
        "print('end', flush=True)"
    )
    async with suite.client() as client:
        run = await client.start(plan_of(a=program(code, str(tmp_path / "open"))))

        async def heard_of(text: bytes) -> bool:
            return text in b"".join([entry.content async for entry in client.logs(run)])

        await until_true(lambda: heard_of(b"attempt 1\n"))
        (task,) = await client.tasks(run)
        worker = next(
            name for name in ("worker-1", "worker-2") if task.worker_id.endswith(name[-1])
        )
        suite.signal(worker, signal.SIGKILL)
        await until_true(lambda: heard_of(b"attempt 2\n"))
        (tmp_path / "open").touch()
        assert (await client.wait(run)).state == "SUCCEEDED"
    assert logs(suite, run.run_id, "a", "--attempt", "2").stdout == b"attempt 2\nend\n"
    assert logs(suite, run.run_id, "a").stdout == b"attempt 1\nattempt 2\nend\n"


async def test_wrong_names_and_ctrl_c(suite: Suite, tmp_path: Path) -> None:
    run = await ended(suite, plan_of(a=program("print(1)")))
    assert suite.stretto("logs", run.run_id, "b").returncode == 2
    assert suite.stretto("logs", "p0-" + "0" * 32).returncode == 2
    assert suite.stretto("logs", run.run_id, "--attempt", "1").returncode == 2
    async with suite.client() as client:
        waiting = await client.start(
            plan_of(a=program("import time; print(1, flush=True); time.sleep(60)"))
        )
        following = await asyncio.create_subprocess_exec(
            BIN / "stretto", "logs", waiting.run_id, "-f", env=suite.environ, cwd=ROOT,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        assert following.stdout is not None
        assert await following.stdout.readline() == b"a | 1\n"
        following.send_signal(signal.SIGINT)
        assert await following.wait() == 130
        assert (await client.get(waiting)).state == "RUNNING", "the run does not end with it"
        await client.kill(waiting)
