"""The command that follows a run: watch."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING

import typer
from rich.live import Live
from stretto_sdk.runs import Run, RunChange, RunState

from stretto_cli import printing
from stretto_cli.command_form import add_commands
from stretto_cli.connection import RESTART_BUDGET, Suite
from stretto_cli.exits import ExitStatus
from stretto_cli.options import AsJson, RunArgument
from stretto_cli.run_board import RunBoard
from stretto_cli.run_reference import find_run
from stretto_cli.run_screen import now_utc, screen, task_line
from stretto_cli.run_view import ending, run_json

if TYPE_CHECKING:
    from stretto_core.ids import RunId
    from stretto_sdk.client import Client

_REDRAW_S = 0.25


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    add_commands(app, watch)


def watch(suite: Suite, run: RunArgument, as_json: AsJson = False) -> None:
    """Follow a run to its end: its tasks, their attempts, and what each waits for.

        stretto watch last
        stretto watch last | grep FAILED
        stretto watch 3dc3f --json | jq -c .task_counts

    On a terminal it draws the tasks, those that run, failed or wait before the rest. Anywhere else
    it writes a line for each change, with the time of the change. It goes on over a restart of the
    kernel; Ctrl-C ends the watch and not the run.

    --json: an object a line, for each change: {"run_id", "state", "task_counts", "version",
    "tasks": [those that changed], "ended"}.

    Exit status: 0 the run succeeded, 1 it did not, 3 the suite is gone for longer than a minute.
    """

    async def follow(client: Client) -> Run:
        run_id = await find_run(client, run)
        if as_json:
            return await _write_json(client, run_id)
        if printing.out.is_terminal:
            return await _draw(client, run_id)
        return await _write_lines(client, run_id)

    ended = suite.ask(follow, retry_budget=RESTART_BUDGET)
    if ended.state is RunState.SUCCEEDED:
        return
    if not as_json:
        printing.complain(ending(ended))
    raise typer.Exit(ExitStatus.FAILED)


async def _draw(client: Client, run_id: RunId) -> Run:
    board = RunBoard()
    changed = asyncio.Event()
    taking = asyncio.create_task(_take_all(client, run_id, board, changed))
    changed_once = asyncio.create_task(changed.wait())
    await asyncio.wait({taking, changed_once}, return_when=asyncio.FIRST_COMPLETED)
    changed_once.cancel()
    if board.run is None:
        return await taking  # It failed before the first step: raise what it raised.
    with Live(console=printing.out, auto_refresh=False, vertical_overflow="crop") as live:

        def redraw() -> None:
            size = printing.out.size
            drawn = screen(board, now=now_utc(), width=size.width, height=size.height)
            live.update(drawn, refresh=True)

        try:
            while not taking.done():
                # At most so often, however much changes; and the durations of what runs go on.
                redraw()
                await asyncio.wait({taking}, timeout=_REDRAW_S)
            ended = await taking
            redraw()
        finally:
            taking.cancel()
    return ended


async def _take_all(client: Client, run_id: RunId, board: RunBoard, changed: asyncio.Event) -> Run:
    async with aclosing(client.watch(run_id, tasks=True)) as changes:
        async for change in changes:
            board.take(change)
            changed.set()
            if change.ended:
                return change.run
    raise AssertionError("a watch ends with the run, or raises")


async def _write_lines(client: Client, run_id: RunId) -> Run:
    board = RunBoard()
    state: RunState | None = None
    async with aclosing(client.watch(run_id, tasks=True)) as changes:
        async for change in changes:
            for task in board.take(change):
                printing.print_line(task_line(board, task))
            if change.run.state is not state:
                state = change.run.state
                since = printing.instant(change.run.update_time)
                printing.print_line(f"{since}  {run_id}  {state}")
            if change.ended:
                return change.run
    raise AssertionError("a watch ends with the run, or raises")


async def _write_json(client: Client, run_id: RunId) -> Run:
    async with aclosing(client.watch(run_id, tasks=True)) as changes:
        async for change in changes:
            printing.print_json_line(_change_json(change))
            if change.ended:
                return change.run
    raise AssertionError("a watch ends with the run, or raises")


def _change_json(change: RunChange) -> dict[str, object]:
    run = run_json(change.run)
    told = {name: run[name] for name in ("run_id", "state", "task_counts", "version")}
    return {**told, "tasks": list(change.tasks), "ended": change.ended}
