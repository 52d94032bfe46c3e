"""`make demo`: a real job on a real suite, with a worker and the kernel killed in mid-run.

Starts PostgreSQL, kernel, projector and two workers in a temporary directory on a free port, runs
examples/hash_report over a directory, sends SIGKILL to one worker and then to the kernel while
chunks are running, and afterwards checks the record: nothing lost, nothing accepted twice, the
hash chain whole. Exit status 0 only if all of that held; of a directory too small for a kill to
land in mid-run it says so. Everything it started it also stops.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from stretto_cli.suite.composition import SuiteSettings, choose_port
from stretto_cli.suite.detached import start_detached, stop_detached
from stretto_cli.suite.directory import SuiteDirectory
from stretto_core.errors import Refusal
from stretto_core.localstack.status import SuiteStatus
from stretto_sdk import Client, Event, Run, RunNotSucceeded, Task, TaskState

ROOT = Path(__file__).resolve().parents[1]
PLAN_PROGRAM = ROOT / "examples" / "hash_report" / "plan.py"
WORKER_COUNT = 2
SLOT_COUNT = 4
WATCH_MS = 5_000
"""About how long the chunks take in all: time enough for two kills to land in mid-run."""
RUN_TIMEOUT_S = 120.0
OTHER_TASK_COUNT = 3
"""Tasks of the plan besides the chunks: list, report, check."""

_VERDICTS = {True: "[green]ok[/]", False: "[red]NO[/]", None: "[yellow]--[/]"}

console = Console(highlight=False, soft_wrap=True)


@dataclass(slots=True)
class Story:
    """What happens to one run: its tasks as last seen, and the two kills."""

    directory: SuiteDirectory
    chunk_count: int = 0
    started_s: float = field(default_factory=time.monotonic)
    tasks: dict[str, Task] = field(default_factory=dict)
    victim: str = ""
    held_by_victim: tuple[str, ...] = ()
    taken_over: set[str] = field(default_factory=set)
    kernel_killed: bool = False

    def say(self, text: str) -> None:
        """Tell what happened, with the time since the start of the run."""
        console.print(f"[dim]{time.monotonic() - self.started_s:6.2f} s[/]  {text}")

    def see(self, task: Task) -> None:
        """Take in a task that changed."""
        self.tasks[task.name] = task
        if task.name == "list" and task.state is TaskState.SUCCEEDED and not self.chunk_count:
            assert isinstance(task.result, Mapping), "the listing is an object"
            self.chunk_count = task.result["chunk_count"]
            self.say(
                f"{task.result['file_count']:,} files listed, {self.chunk_count} chunks spawned"
            )
        held = task.name in self.held_by_victim and task.name not in self.taken_over
        if held and task.epoch > 1:
            self.taken_over.add(task.name)
            self.say(f"{task.name} taken over by {task.worker_id} (epoch {task.epoch})")

    @property
    def chunks(self) -> list[Task]:
        """The chunks seen so far."""
        return [task for name, task in self.tasks.items() if name.startswith("list/")]

    @property
    def done_count(self) -> int:
        """How many chunks have ended."""
        return sum(task.state is TaskState.SUCCEEDED for task in self.chunks)

    def act(self) -> None:
        """Kill a worker once a quarter is done, the kernel once half is, while chunks run."""
        running = Counter(task.worker_id for task in self.chunks if task.state is TaskState.RUNNING)
        if not running:
            return
        if not self.victim and self.done_count >= self.chunk_count // 4:
            self._kill_worker(running.most_common(1)[0][0])
        elif (
            self.taken_over and not self.kernel_killed and self.done_count >= self.chunk_count // 2
        ):
            self._kill_kernel()

    def _kill_worker(self, worker_id: str) -> None:
        self.victim = worker_id
        self.held_by_victim = tuple(
            task.name
            for task in self.chunks
            if task.worker_id == worker_id and task.state is TaskState.RUNNING
        )
        pid = self._kill(worker_id)
        held = ", ".join(name.removeprefix("list/") for name in self.held_by_victim)
        self.say(f"[bold red]SIGKILL[/] {worker_id} (pid {pid}), which was running {held}")

    def _kill_kernel(self) -> None:
        self.kernel_killed = True
        pid = self._kill("kernel")
        self.say(
            f"[bold red]SIGKILL[/] kernel (pid {pid}) after {self.done_count} of "
            f"{self.chunk_count} chunks"
        )

    def _kill(self, process: str) -> int:
        status = self.directory.status()
        pid = None if status is None else status.child(process).pid
        assert pid is not None, f"{process} runs: it was just at work"
        os.kill(pid, signal.SIGKILL)
        return pid


async def follow(client: Client, run: Run, story: Story) -> Run:
    """Watch the run to its end, killing on the way; returns it as it ended."""
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as progress:
        bar = progress.add_task("tasks done", total=None)
        told = 0
        async with aclosing(client.watch(run, tasks=True)) as changes:
            async for change in changes:
                for task in change.tasks:
                    story.see(task)
                story.act()
                done, total = change.run.tasks.succeeded, change.run.tasks.total
                progress.update(bar, completed=done, total=total)
                if not console.is_terminal and done * 4 // total > told:
                    told = done * 4 // total
                    story.say(f"{done} of {total} tasks done")
                if change.ended:
                    return change.run
    raise AssertionError("a watch ends with the run, or raises")


def judge(
    story: Story, run: Run, events: list[Event], status: SuiteStatus
) -> dict[str, bool | None]:
    """Return what had to hold, and whether it did, from the record alone where it can tell.

    None where it was not tried: no chunk was running any more when a kill was due.
    """
    accepted = Counter(
        event.body["task"] for event in events if event.type.endswith(".AttemptSucceeded")
    )
    # Not AttemptLost: an assignment that the killed worker had not acknowledged is released.
    leased = Counter(
        event.body["task"] for event in events if event.type.endswith(".AttemptLeased")
    )
    taken_over = {task for task in story.held_by_victim if leased[task] > 1}
    kinds = Counter(event.type.rpartition(".")[2] for event in events)
    restarts = {child.name: child.restart_count for child in status.children}
    return {
        "a worker was killed in mid-run and its chunks were taken over": (
            bool(taken_over) and taken_over <= accepted.keys() if story.victim else None
        ),
        "the kernel was killed in mid-run and restarted": (
            restarts["kernel"] >= 1 if story.kernel_killed else None
        ),
        "the killed worker was restarted": (restarts[story.victim] >= 1 if story.victim else None),
        "nothing was lost: every task has its result": len(accepted)
        == run.tasks.total
        == run.tasks.succeeded
        == story.chunk_count + OTHER_TASK_COUNT,
        "nothing was accepted twice: one result a task": set(accepted.values()) == {1},
        "the run succeeded, once": kinds["RunSucceeded"] == 1
        and events[-1].type.endswith("Succeeded"),
    }


def show_report(output: object) -> None:
    """Print what the run yielded."""
    assert isinstance(output, Mapping), "the report is an object"
    console.print("\n[bold]Report[/]")
    for name, value in output.items():
        text = f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else value
        console.print(f"  {name.replace('_', ' '):<18} {text}")


async def tell(client: Client, story: Story, plan: str) -> bool:
    """Run the job and judge it; returns whether everything held."""
    run = await client.start(plan)
    story.started_s = time.monotonic()
    story.say(f"run {run.run_id} started")
    ended = await follow(client, run, story)
    story.say(f"run {ended.state.lower()}")
    output = await client.result(ended)
    show_report(output)
    async with aclosing(client.events(run)) as found:
        events = [event async for event in found]
    check = await client.verify()
    status = story.directory.status()
    assert status is not None, "the suite runs"
    verdicts = judge(story, ended, events, status)
    verdicts["the hash chain is whole"] = check.whole
    kinds = Counter(event.type.rpartition(".")[2] for event in events)
    console.print("\n[bold]Record[/]")
    console.print(f"  events             {len(events)} of the run, {check.event_count} in all")
    console.print(
        f"  attempts           {kinds['AttemptLeased']} leased, {kinds['AttemptSucceeded']} "
        f"accepted, {kinds['AttemptLost']} lost, {kinds['WriteRefused']} refused writes"
    )
    console.print(f"  hash chain         {'whole' if check.whole else check.broken}")
    console.print()
    for sentence, held in verdicts.items():
        console.print(f"  {_VERDICTS[held]}  {sentence}")
    if None in verdicts.values():
        console.print(
            "  --: not tried, it was over too soon; a directory of more files (DIR=...) shows it"
        )
    return False not in verdicts.values()


async def demo(suite: SuiteDirectory, plan: str) -> bool:
    """Connect to the suite and run the story."""
    async with Client(data_directory=suite.root) as client:
        return await tell(client, Story(suite), plan)


def main() -> int:
    """Run the demo; 0 only if everything held."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--dir", type=Path, default=ROOT, help="the directory to report on")
    directory = parser.parse_args().dir.resolve()
    if not directory.is_dir():
        console.print(f"{directory} is no directory: give another with DIR=...")
        return 2
    home = Path(tempfile.mkdtemp(prefix="stretto-demo-"))
    home.chmod(0o755)  # The account that PostgreSQL runs as passes through it.
    suite = SuiteDirectory(home)
    settings = SuiteSettings(
        directory=suite,
        port=choose_port(0),
        worker_count=WORKER_COUNT,
        slot_count=SLOT_COUNT,
        environ=os.environ,
    )
    plan = subprocess.run(
        [sys.executable, PLAN_PROGRAM, directory, str(WATCH_MS)],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # So that it stops what it started.
    console.print(f"[bold]hash report[/] over {directory}")
    held = False
    try:
        started_s = time.monotonic()
        status = start_detached(settings, lambda _status: None)
        names = ", ".join(f"{child.name} ({child.pid})" for child in status.children)
        console.print(f"suite up in {time.monotonic() - started_s:.1f} s: {names}")
        held = asyncio.run(asyncio.wait_for(demo(suite, plan), RUN_TIMEOUT_S))
    except TimeoutError:
        console.print(f"[bold red]failed:[/] not done after {RUN_TIMEOUT_S:.0f} s")
    except (Refusal, RunNotSucceeded) as error:
        console.print(f"[bold red]failed:[/] {error}", markup=True)
    except KeyboardInterrupt:
        console.print("interrupted")
    finally:
        stop_detached(suite)
        shutil.rmtree(home, ignore_errors=True)
    console.print(
        f"\n{'all of it held' if held else '[bold red]not all of it held[/]'}; everything stopped"
    )
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
