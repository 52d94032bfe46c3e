"""A simulated process: what can be killed, or stopped and woken, between any two callbacks.

A process is a mark in the context of every task and callback that it starts, and the virtual loop
asks the mark before each callback. So a kill is a real kill: no `finally`, no `except`, no goodbye
runs; and a stopped process finds, when woken, everything that fell due meanwhile.
"""

from __future__ import annotations

import asyncio
import contextvars
import enum
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

_CURRENT: contextvars.ContextVar[Process | None] = contextvars.ContextVar("process", default=None)


class ProcessState(enum.Enum):
    """Whether a process runs."""

    RUNNING = "running"
    FROZEN = "frozen"
    DEAD = "dead"


class Process:
    """One process on the running virtual loop.

    name: for traces; a restarted process is a new Process, usually with a number in its name.
    host: what partitions separate; processes of one host always reach each other.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, name: str, *, host: str = "") -> None:
        self._loop = loop
        self.name = name
        self.host = host or name
        self.state = ProcessState.RUNNING
        self._parked: list[asyncio.Handle] = []
        self._death_watchers: list[Callable[[], None]] = []
        self._context = contextvars.Context()
        self._context.run(_CURRENT.set, self)

    def __repr__(self) -> str:
        return f"Process({self.name}, {self.state.value})"

    @property
    def is_running(self) -> bool:
        """Whether its callbacks run."""
        return self.state is ProcessState.RUNNING

    @property
    def is_dead(self) -> bool:
        """Whether it was killed."""
        return self.state is ProcessState.DEAD

    def spawn(self, coroutine: Coroutine[Any, Any, T], *, name: str = "main") -> asyncio.Task[T]:
        """Run `coroutine` as a task of this process; everything it starts belongs to it too."""
        return self._loop.create_task(
            coroutine, name=f"{self.name}/{name}", context=self._context.copy()
        )

    def call_soon(self, callback: Callable[..., object], *args: object) -> None:
        """Call back inside this process: at once, when it is woken, or never."""
        self._loop.call_soon(callback, *args, context=self._context.copy())

    def call_later(self, delay_s: float, callback: Callable[..., object], *args: object) -> None:
        """Call back inside this process after `delay_s` seconds."""
        self._loop.call_later(delay_s, callback, *args, context=self._context.copy())

    def run(self, callback: Callable[..., T], *args: object) -> T:
        """Call now, with everything that the call starts belonging to this process."""
        assert self.is_running, f"{self} cannot run anything"
        return self._context.copy().run(callback, *args)

    def when_dead(self, callback: Callable[[], None]) -> None:
        """Call back, outside the process, when it is killed: what the operating system does."""
        self._death_watchers.append(callback)

    def freeze(self) -> None:
        """Stop it as SIGSTOP does: nothing of it runs until `thaw`."""
        if self.state is ProcessState.RUNNING:
            self.state = ProcessState.FROZEN

    def thaw(self) -> None:
        """Wake it as SIGCONT does: everything that fell due meanwhile runs."""
        if self.state is not ProcessState.FROZEN:
            return
        self.state = ProcessState.RUNNING
        parked, self._parked = self._parked, []
        for handle in parked:
            # Through call_soon, so that the seed orders what was parked like everything else.
            self._loop.call_soon(_run_parked, handle, context=self._context.copy())

    def kill(self) -> None:
        """End it as SIGKILL does: nothing of it ever runs again. Idempotent."""
        if self.is_dead:
            return
        self.state = ProcessState.DEAD
        self._parked.clear()
        watchers, self._death_watchers = self._death_watchers, []
        for watcher in watchers:
            watcher()

    def park(self, handle: asyncio.Handle) -> None:
        """The loop's: keep a callback for the thaw, or drop it when the process is dead."""
        if self.state is ProcessState.FROZEN:
            self._parked.append(handle)


def process_of(context: contextvars.Context) -> Process | None:
    """Return the process a callback's context belongs to; None outside all of them."""
    return context.get(_CURRENT)


def _run_parked(handle: asyncio.Handle) -> None:
    if not handle.cancelled():
        handle._run()
