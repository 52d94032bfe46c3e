"""The blocking client: the same calls as the other one, real calls, Ctrl-C, a program's end."""

from __future__ import annotations

import asyncio
import importlib.util
import inspect
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from stretto_sdk import Client, Plan, Run, RunState, SyncClient, TaskContext, Worker, run_plan
from stretto_sdk.errors import NotFound

from tests.integration.kernel.serving import Served, served
from tests.integration.worker.conftest import environment
from tests.integration.worker.test_with_kernel import serving

ROOT = Path(__file__).resolve().parents[3]
PATIENCE_S = 60.0


@pytest.fixture
async def kernel(fresh_database: str) -> AsyncIterator[Served]:
    async with served(fresh_database) as kernel:
        yield kernel


@asynccontextmanager
async def working(kernel: Served) -> AsyncIterator[Worker]:
    """A worker with two functions: `double`, and `wait`, which never ends by itself."""
    worker = Worker(kernel.address, name="w")

    @worker.task
    async def double(ctx: TaskContext, number: int) -> int:
        return 2 * number

    @worker.task
    async def wait(ctx: TaskContext) -> None:
        await asyncio.Event().wait()

    async with serving(worker):
        yield worker


def a_plan(function: str = "double", **inputs: object) -> Plan:
    plan = Plan("of-one")
    plan.output = plan.task("a", executor="python", function=function, inputs=inputs).output()
    return plan


async def in_thread(call: Callable[[], object]) -> object:
    return await asyncio.wait_for(asyncio.to_thread(call), PATIENCE_S)


def test_it_has_every_method_of_the_client_with_its_parameters_and_documentation() -> None:
    """Whoever changes Client calls `make sync`."""
    path = ROOT / "scripts" / "gen_sync_client.py"
    spec = importlib.util.spec_from_file_location("gen_sync_client", path)
    assert spec is not None and spec.loader is not None
    generator = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generator)
    committed = (ROOT / "libs/stretto_sdk/sync_client.py").read_text()
    assert generator.generated() == committed, "call `make sync`"
    committed = (ROOT / "libs/stretto_sdk/sync_blackboard.py").read_text()
    assert generator.generated_board() == committed, "call `make sync`"
    for name, method in inspect.getmembers(Client, inspect.isfunction):
        if not name.startswith("_") or name == "__init__":
            theirs, ours = inspect.signature(method), inspect.signature(getattr(SyncClient, name))
            assert list(theirs.parameters.values()) == list(ours.parameters.values()), name


async def test_runs_are_started_followed_and_read_without_a_loop(kernel: Served) -> None:
    seen: list[RunState] = []

    def program() -> None:
        with SyncClient(kernel.address) as client:
            run = client.start(a_plan(number=21))
            ended = client.wait(run, on_change=lambda change: seen.append(client.get(run).state))
            assert (ended.state, ended.output) == (RunState.SUCCEEDED, 42)
            assert client.result(run) == client.run(a_plan(number=21)) == 42
            assert [task.name for task in client.tasks(run)] == ["a"]
            assert [change.ended for change in client.watch(run)] == [True]
            kinds = [event.type.rpartition(".")[2] for event in client.events(run)]
            assert (kinds[0], kinds[-1]) == ("RunStarted", "RunSucceeded")
            assert client.verify(run).whole
            with pytest.raises(NotFound):
                client.get("p0-" + "0" * 32)
            with pytest.raises(NotFound):
                next(client.rebuild_views("no-such-view"))
            followed = client.events(follow=True)
            assert next(followed).type.endswith("RunStarted")
            followed.close()

    async with working(kernel):
        await in_thread(program)
        assert await in_thread(lambda: run_plan(a_plan(number=3), address=kernel.address)) == 6
    assert seen


async def test_a_thread_whose_own_loop_runs_may_call_it_too(kernel: Served) -> None:
    async def notebook_cell() -> int:
        with SyncClient(kernel.address) as client:
            return len(client.tasks(client.start(a_plan(number=1))))

    assert await in_thread(lambda: asyncio.run(notebook_cell())) == 1


PROGRAM = """
import sys
from stretto_sdk import SyncClient
client = SyncClient(sys.argv[1])
try:
    print("ready", client.get(sys.argv[2]).state, flush=True)
    {call}
except KeyboardInterrupt:
    print("interrupted", client.get(sys.argv[2]).state, flush=True)
"""


@pytest.mark.parametrize("call", ["client.wait(sys.argv[2])", "list(client.watch(sys.argv[2]))"])
async def test_ctrl_c_ends_the_call_and_the_client_goes_on(kernel: Served, call: str) -> None:
    async with working(kernel), Client(kernel.address) as client:
        run = await client.start(a_plan("wait"))
        process = await _python(PROGRAM.format(call=call), kernel, run)
        assert process.stdout is not None and process.stderr is not None
        assert (await process.stdout.readline()).startswith(b"ready")
        process.send_signal(signal.SIGINT)
        # Nobody closed the client: its thread ends with the program all the same.
        out, err = await asyncio.wait_for(process.communicate(), PATIENCE_S)
        assert (process.returncode, out, err) == (0, b"interrupted RUNNING\n", b"")
        await client.kill(run)


async def _python(program: str, kernel: Served, run: Run) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        program,
        kernel.address,
        run.run_id,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment(),
    )
