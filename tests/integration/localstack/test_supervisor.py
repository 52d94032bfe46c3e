"""The supervisor on real processes: order, restart, back-off, drain, and its own death."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from stretto_core.localstack.child import ChildFailed, ChildSpec, StopStep
from stretto_core.localstack.status import ChildState, read_status
from stretto_core.localstack.supervisor import SuiteRunning, Supervisor, backoff_ms

from tests.waiting import until

SLEEPER = "import signal; signal.pause()"
SELF = str(Path(__file__))


def sleeper(directory: Path, name: str, code: str = SLEEPER, **more: object) -> ChildSpec:
    return ChildSpec(
        name=name,
        argv=(sys.executable, "-I", "-S", "-c", code),
        log_path=directory / f"{name}.log",
        **more,  # type: ignore[arg-type]
    )


def file_exists(path: Path) -> Callable[[int], Awaitable[bool]]:
    async def probe(_pid: int) -> bool:
        return path.exists()

    return probe


async def test_children_start_in_order_and_stop_in_reverse(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    code = (
        "import signal, sys, os\n"
        "def say(word): open(sys.argv[1], 'a').write(sys.argv[2] + word)\n"
        "signal.signal(signal.SIGTERM, lambda *_: (say('-'), sys.exit(0)))\n"
        "say('+')\n"
        "open(sys.argv[1] + sys.argv[2], 'w')\n"
        "signal.pause()\n"
    )
    specs = [
        ChildSpec(
            name=name,
            argv=(sys.executable, "-I", "-S", "-c", code, str(journal), name),
            log_path=tmp_path / f"{name}.log",
            ready=file_exists(tmp_path / f"journal{name}"),
        )
        for name in ("a", "b", "c")
    ]
    seen: list[tuple[str, ...]] = []
    supervisor = Supervisor(
        specs,
        status_path=tmp_path / "status.json",
        watch=lambda status: seen.append(tuple(child.state for child in status.children)),
    )
    await supervisor.start()
    await supervisor.stop()
    assert journal.read_text() == "a+b+c+c-b-a-"
    assert seen.index(("ready", "starting", "waiting")) < seen.index(("ready",) * 3)
    assert seen.index(("ready", "ready", "stopping")) < seen.index(("ready", "ready", "stopped"))
    status = read_status(tmp_path / "status.json")
    assert status is not None
    assert {child.state for child in status.children} == {ChildState.STOPPED}


async def test_a_status_that_cannot_be_written_costs_no_child_its_keeper(tmp_path: Path) -> None:
    status_path = tmp_path / "status.json"
    status_path.mkdir()  # Stands for a full disk.
    supervisor = Supervisor([sleeper(tmp_path, "one")], status_path=status_path)
    await supervisor.start()
    try:
        pid = supervisor.status.child("one").pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        await until(lambda: supervisor.status.child("one").pid not in (None, pid))
    finally:
        await supervisor.stop()
    assert supervisor.status.child("one").state is ChildState.STOPPED


async def test_a_killed_child_is_started_again_at_once(tmp_path: Path) -> None:
    supervisor = Supervisor([sleeper(tmp_path, "one")], status_path=tmp_path / "status.json")
    await supervisor.start()
    try:
        first = supervisor.status.child("one").pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        await until(lambda: supervisor.status.child("one").pid not in (None, first))
        await until(lambda: supervisor.status.child("one").state is ChildState.READY)
        seen = read_status(tmp_path / "status.json")
        assert seen is not None
        assert seen.child("one").restart_count == 1
        assert seen.child("one").exit_status_last == -signal.SIGKILL
    finally:
        await supervisor.stop()


async def test_a_child_that_keeps_dying_is_backed_off(tmp_path: Path) -> None:
    supervisor = Supervisor(
        [sleeper(tmp_path, "brief", "raise SystemExit(3)", ready=file_exists(tmp_path))],
        status_path=tmp_path / "status.json",
    )
    await supervisor.start()
    try:
        await until(lambda: supervisor.status.child("brief").backoff_ms >= 200)
        assert supervisor.status.child("brief").exit_status_last == 3
    finally:
        await supervisor.stop()


def test_the_back_off_doubles_to_its_limit() -> None:
    assert [backoff_ms(n) for n in (1, 2, 3, 4, 8, 9, 1_000)] == [
        0,
        100,
        200,
        400,
        6_400,
        10_000,
        10_000,
    ]


async def test_a_first_start_that_fails_shows_the_log_and_stops_the_others(tmp_path: Path) -> None:
    supervisor = Supervisor(
        [
            sleeper(tmp_path, "good"),
            sleeper(
                tmp_path,
                "bad",
                "raise SystemExit('no such port')",
                ready=file_exists(tmp_path / "x"),
            ),
        ],
        status_path=tmp_path / "status.json",
    )
    with pytest.raises(ChildFailed, match="no such port"):
        await supervisor.run()
    assert supervisor.status.child("good").pid is None


async def test_a_child_that_failed_is_told_without_what_an_earlier_one_said(tmp_path: Path) -> None:
    told = []
    for why in ("no such port", "no such host"):
        code = f"import sys; sys.exit('{why}')"
        supervisor = Supervisor(
            [sleeper(tmp_path, "bad", code, ready=file_exists(tmp_path / "never"))],
            status_path=tmp_path / "status.json",
        )
        with pytest.raises(ChildFailed) as failed:
            await supervisor.run()
        told.append(str(failed.value))
    assert "no such host" in told[1] and "no such port" not in told[1]


async def test_a_child_that_ignores_its_signal_is_killed(tmp_path: Path) -> None:
    ready = tmp_path / "deaf.ready"
    code = (
        "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        f"open({str(ready)!r}, 'w'); signal.pause()"
    )
    spec = sleeper(
        tmp_path,
        "deaf",
        code,
        ready=file_exists(ready),
        stop_steps=(StopStep(signal.SIGTERM, 50),),
    )
    supervisor = Supervisor([spec], status_path=tmp_path / "status.json")
    await supervisor.start()
    pid = supervisor.status.child("deaf").pid
    await supervisor.stop()
    assert pid is not None
    assert not _alive(pid)


async def test_a_second_supervisor_of_the_directory_refuses(tmp_path: Path) -> None:
    first = Supervisor([sleeper(tmp_path, "one")], status_path=tmp_path / "status.json")
    await first.start()
    try:
        second = Supervisor([sleeper(tmp_path, "one")], status_path=tmp_path / "status.json")
        with pytest.raises(SuiteRunning):
            await second.run()
        assert first.status.child("one").state is ChildState.READY
    finally:
        await first.stop()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_no_child_outlives_the_supervisor(tmp_path: Path, number: signal.Signals) -> None:
    status_path = tmp_path / "status.json"
    code = (
        "import asyncio, sys; from pathlib import Path;"
        "from stretto_core.localstack.child import ChildSpec;"
        "from stretto_core.localstack.supervisor import Supervisor;"
        f"spec = ChildSpec(name='one', argv=(sys.executable, '-I', '-S', '-c', {SLEEPER!r}),"
        f" log_path=Path({str(tmp_path / 'one.log')!r}));"
        f"asyncio.run(Supervisor([spec], status_path=Path({str(status_path)!r})).run())"
    )
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code)
    await until(lambda: _state(status_path) is ChildState.READY)
    status = read_status(status_path)
    assert status is not None
    pid = status.child("one").pid
    assert pid is not None
    process.send_signal(number)
    assert await process.wait() == (0 if number is signal.SIGTERM else -signal.SIGKILL)
    await until(lambda: not _alive(pid))


def _state(status_path: Path) -> ChildState | None:
    status = read_status(status_path)
    return status.child("one").state if status else None


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        # An orphan's new parent may not have reaped it yet.
        return " Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
