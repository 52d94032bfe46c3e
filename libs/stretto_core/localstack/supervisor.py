"""Keeps child processes alive, in order, and stops them in the reverse order.

A dead child is started again at once; if it dies again before it was ready for a while, after a
back-off that doubles. One supervisor per directory: a file lock refuses a second. Whatever kills
the supervisor kills its children (see `child`); it signals no process it did not start.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from stretto_core.clock import NS_PER_S, Clock
from stretto_core.clock.system import SystemClock
from stretto_core.localstack.child import Child, ChildFailed, ChildSpec
from stretto_core.localstack.status import ChildState, ChildStatus, SuiteStatus, write_status

BACKOFF_MS_MIN = 100
BACKOFF_MS_MAX = 10_000
STABLE_NS = 10 * NS_PER_S
"""A child that was ready for so long has earned an immediate restart again."""


class SuiteRunning(Exception):
    """Another supervisor runs in this directory."""


def backoff_ms(deaths_in_a_row: int) -> int:
    """Return the wait before a start after so many deaths (>= 1): 0, 100, 200 ... 10,000."""
    if deaths_in_a_row <= 1:
        return 0
    return int(min(BACKOFF_MS_MAX, BACKOFF_MS_MIN << min(deaths_in_a_row - 2, 16)))


class Supervisor:
    """Runs `specs`, each once the one before it is ready; `status_path` says how they are.

    watch: told the status at every change of it, on the loop; must not block.
    """

    def __init__(
        self,
        specs: Sequence[ChildSpec],
        *,
        status_path: Path,
        clock: Clock | None = None,
        watch: Callable[[SuiteStatus], None] | None = None,
    ) -> None:
        assert len({spec.name for spec in specs}) == len(specs), "children have distinct names"
        self._children = [Child(spec) for spec in specs]
        self._status_path = status_path
        self._clock = clock or SystemClock()
        self._watch = watch
        self._lock: BinaryIO | None = None
        self._keepers: list[asyncio.Task[None]] = []
        self._stop_asked = asyncio.Event()
        now_ns = self._clock.now_ns()
        self._statuses = {
            spec.name: ChildStatus(
                spec.name, ChildState.WAITING, now_ns, log_path=str(spec.log_path)
            )
            for spec in specs
        }

    @property
    def status(self) -> SuiteStatus:
        """What every child is doing now."""
        return SuiteStatus(os.getpid(), tuple(self._statuses.values()))

    def ask_stop(self) -> None:
        """Make `run` drain and return; safe to repeat, and the handler of SIGTERM and SIGINT."""
        self._stop_asked.set()

    async def run(self) -> None:
        """Start all, keep them alive until SIGTERM, SIGINT or `ask_stop`, then drain.

        Raises ChildFailed when a first start fails, SuiteRunning beside another supervisor;
        whatever was started is stopped before it raises.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.ask_stop)
        asked = asyncio.ensure_future(self._stop_asked.wait())
        starting = asyncio.ensure_future(self.start())
        try:
            await asyncio.wait({asked, starting}, return_when=asyncio.FIRST_COMPLETED)
            if starting.done():
                await starting
                await asyncio.wait({asked, *self._keepers}, return_when=asyncio.FIRST_COMPLETED)
                for keeper in self._keepers:
                    if keeper.done():
                        await keeper  # Without a stop it ends only by a bug of ours: raise it.
        finally:
            asked.cancel()
            starting.cancel()
            await asyncio.wait({asked, starting})
            await self.stop()
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)

    async def start(self) -> None:
        """Start every child in order; returns when all are ready.

        Raises ChildFailed or OSError when one does not come up, SuiteRunning; then call `stop`.
        """
        self._take_lock()
        for child in self._children:
            await self._bring_up(child)
            self._keepers.append(asyncio.ensure_future(self._keep(child)))

    async def stop(self) -> None:
        """Stop every child in the reverse order, each by its own steps. Repeating is harmless."""
        for keeper in self._keepers:
            keeper.cancel()
        if self._keepers:
            await asyncio.wait(self._keepers)
        self._keepers.clear()
        if self._lock is None:
            return
        for child in reversed(self._children):
            if child.pid is not None:
                self._note(child, ChildState.STOPPING)
                await child.stop()
            self._note(child, ChildState.STOPPED)
        self._lock.close()
        self._lock = None

    async def _bring_up(self, child: Child) -> None:
        self._note(child, ChildState.STARTING)
        await child.start()
        self._note(child, ChildState.STARTING)
        await child.wait_ready()
        self._note(child, ChildState.READY)

    async def _keep(self, child: Child) -> None:
        """Start the child again whenever it ends, until a stop is asked."""
        deaths_in_a_row = 0
        while True:
            exit_status = await child.wait_ended()
            status = self._statuses[child.spec.name]
            lived_ns = self._clock.now_ns() - status.since_ns
            if status.state is ChildState.READY and lived_ns >= STABLE_NS:
                deaths_in_a_row = 0
            deaths_in_a_row += 1
            wait_ms = backoff_ms(deaths_in_a_row)
            self._statuses[child.spec.name] = replace(
                status, restart_count=status.restart_count + 1, exit_status_last=exit_status
            )
            self._note(child, ChildState.BACKING_OFF, wait_ms)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stop_asked.wait(), wait_ms / 1_000)
                return
            try:
                await self._bring_up(child)
            except (ChildFailed, OSError):
                await (
                    child.stop()
                )  # It may live and never become ready; its end is the next round's.

    def _note(self, child: Child, state: ChildState, wait_ms: int = 0) -> None:
        name = child.spec.name
        self._statuses[name] = replace(
            self._statuses[name],
            state=state,
            since_ns=self._clock.now_ns(),
            pid=child.pid,
            backoff_ms=wait_ms,
        )
        status = self.status
        # The file is for onlookers: a full disk costs them the news, and no child its keeper.
        with contextlib.suppress(OSError):
            write_status(self._status_path, status)
        if self._watch is not None:
            self._watch(status)

    def _take_lock(self) -> None:
        self._status_path.parent.mkdir(parents=True, exist_ok=True)
        lock = self._status_path.with_suffix(".lock").open("ab")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            raise SuiteRunning(
                f"another suite runs in {self._status_path.parent}: stop it first"
            ) from None
        self._lock = lock
