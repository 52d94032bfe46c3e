"""An asyncio event loop on virtual time: the simulator's scheduler.

Owns time and order. Time stands still while anything can run and then jumps to the next timer, so
an hour costs nothing and no test sleeps. What is ready together runs in an order drawn from the
seed, since asyncio promises none between tasks. Threads, sockets, signals and subprocesses are
refused: they would bring real time in. When nothing can ever run again the loop says who waits for
what instead of hanging. Instants are nanoseconds inside and, as asyncio has it, seconds outside.
"""

from __future__ import annotations

import asyncio
import contextvars
import gc
import heapq
import itertools
import math
import random
from collections.abc import Callable, Coroutine, Generator
from contextlib import suppress
from typing import Any, TypeVar

from stretto_core.clock import NS_PER_S
from stretto_core.testing.process import process_of

T = TypeVar("T")

START_NS = 1_000 * NS_PER_S
"""Where loop time starts: not 0, so that an instant mistaken for a span shows."""
_CALLBACKS_PER_INSTANT_MAX = 200_000
_SHUTDOWN_ROUNDS = 20
_RESOLUTION_S = 1e-9


class Deadlock(Exception):
    """Nothing is ready, no timer is armed, and the main task is not done."""


class Livelock(Exception):
    """Callbacks go on for ever without any time passing."""


class ForbiddenInSimulation(Exception):
    """Something asked for real time: a thread, a socket, a subprocess or a signal."""


class _NumberedTask(asyncio.Task[T]):
    """A task whose hash is its number: asyncio keeps sets of tasks, and they iterate alike."""

    def __init__(self, number: int, coroutine: Coroutine[Any, Any, T], **kwargs: Any) -> None:
        self.number = number  # Before the base class registers it in a set.
        super().__init__(coroutine, **kwargs)

    def __hash__(self) -> int:
        return self.number


class _NumberedFuture(asyncio.Future[T]):
    """A future whose hash is its number."""

    def __init__(self, number: int, loop: asyncio.AbstractEventLoop) -> None:
        self.number = number
        super().__init__(loop=loop)

    def __hash__(self) -> int:
        return self.number


class VirtualLoop(asyncio.BaseEventLoop):
    """Runs coroutines on virtual time.

    order: decides which of the ready callbacks goes first.
    failures: what reached the exception handler; a simulation that ends with any has failed.
    """

    _ready: Any
    _scheduled: Any

    def __init__(self, order: random.Random) -> None:
        super().__init__()
        self._order = order
        self._now_ns = START_NS
        self._clock_resolution = _RESOLUTION_S
        self._numbers = itertools.count(1)
        self._tasks: list[_NumberedTask[Any]] = []
        self._tasks_kept_max = 1_000
        self._callbacks_this_instant = 0
        self.callback_count = 0
        self.failures: list[dict[str, Any]] = []
        self.set_exception_handler(lambda _, failure: self.failures.append(failure))

    @property
    def now_ns(self) -> int:
        """Virtual nanoseconds since an arbitrary origin; never go back."""
        return self._now_ns

    def time(self) -> float:
        """Virtual seconds since an arbitrary origin."""
        return self._now_ns / NS_PER_S

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        """Run `main` to its end, then end every task left over, and close. Raises what it raises.

        Raises Deadlock when nothing can run any more and Livelock when time stops passing.
        """
        asyncio.set_event_loop(self)
        # The collector ends abandoned generators at moments that no seed decides.
        collecting = gc.isenabled()
        gc.disable()
        try:
            return self.run_until_complete(main)
        finally:
            self._end_leftovers()
            asyncio.set_event_loop(None)
            self.close()
            if collecting:
                gc.enable()

    def create_task(
        self,
        coro: Generator[Any, None, T] | Coroutine[Any, Any, T],
        *,
        name: object = None,
        context: contextvars.Context | None = None,
        **_: Any,
    ) -> asyncio.Task[T]:
        """See asyncio; the loop keeps every task alive, as the collector's moment is not seeded."""
        number = next(self._numbers)
        assert asyncio.iscoroutine(coro), "a task runs a coroutine"
        task = _NumberedTask(
            number, coro, loop=self, name=str(name or f"task-{number}"), context=context
        )
        self._tasks.append(task)
        if len(self._tasks) > self._tasks_kept_max:
            self._tasks = [kept for kept in self._tasks if not kept.done()]
            self._tasks_kept_max = 2 * len(self._tasks) + 1_000
        return task

    def create_future(self) -> asyncio.Future[Any]:
        """See asyncio."""
        return _NumberedFuture(next(self._numbers), self)

    def run_in_executor(  # type: ignore[override]
        self, executor: Any, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        """Refused: a thread runs in real time."""
        raise ForbiddenInSimulation(f"run_in_executor({func!r}): put it behind a port")

    def pending_report(self) -> str:
        """Say which tasks wait, and where: one line each."""
        lines = [f"  {task.get_name()}: {_where(task)}" for task in self._tasks if not task.done()]
        return "\n".join(lines) or "  (no task)"

    def _run_once(self) -> None:
        self._take_due_timers()
        if not self._ready:
            self._jump_to_next_timer()
        batch: list[asyncio.Handle] = list(self._ready)
        self._ready.clear()
        if len(batch) > 1:
            self._order.shuffle(batch)
        self._callbacks_this_instant += len(batch)
        self.callback_count += len(batch)
        if self._callbacks_this_instant > _CALLBACKS_PER_INSTANT_MAX:
            raise Livelock(f"no time passes at {self.time()} s; tasks:\n{self.pending_report()}")
        for handle in batch:
            if handle.cancelled():
                continue
            process = process_of(handle._context)  # type: ignore[attr-defined]
            if process is None or process.is_running:
                handle._run()
            else:
                process.park(handle)

    def _take_due_timers(self) -> None:
        due_s = self.time() + _RESOLUTION_S
        while self._scheduled and (
            self._scheduled[0]._when < due_s or self._scheduled[0].cancelled()
        ):
            timer = heapq.heappop(self._scheduled)
            timer._scheduled = False
            if not timer.cancelled():
                self._ready.append(timer)

    def _jump_to_next_timer(self) -> None:
        if not self._scheduled:
            if self._stopping:  # type: ignore[attr-defined]
                return
            raise Deadlock(f"nothing can run any more; tasks:\n{self.pending_report()}")
        next_ns = math.ceil(self._scheduled[0]._when * NS_PER_S)
        if next_ns > self._now_ns:
            self._now_ns = next_ns
            self._callbacks_this_instant = 0
        self._take_due_timers()

    def _end_leftovers(self) -> None:
        """Cancel what is left, dead processes' tasks included; nothing they still do counts."""
        self.set_exception_handler(lambda _, __: None)
        asyncio._set_running_loop(self)
        try:
            for _ in range(_SHUTDOWN_ROUNDS):
                left = [task for task in self._tasks if not task.done()]
                for task in left:
                    task.cancel()
                batch: list[asyncio.Handle] = list(self._ready)
                self._ready.clear()
                for handle in batch:
                    if not handle.cancelled():
                        handle._run()
        finally:
            asyncio._set_running_loop(None)
        for task in self._tasks:
            if not task.done():
                # Its wake-up was dropped with its process, so no cancellation reaches it.
                task._log_destroy_pending = False  # type: ignore[attr-defined]
                with suppress(Exception):
                    task.get_coro().close()

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Cancelled timers leave the heap when they surface."""

    def _process_events(self, event_list: Any) -> None:
        """There are no sockets, so there is nothing to process."""

    def _write_to_self(self) -> None:
        """There is no other thread to wake the loop from."""


def _where(task: asyncio.Task[Any]) -> str:
    """Return the innermost place of ours that the task waits at."""
    place = "not started"
    awaited: Any = task.get_coro()
    while awaited is not None:
        frame = getattr(awaited, "cr_frame", None) or getattr(awaited, "ag_frame", None)
        if frame is not None:
            place = f"{frame.f_code.co_qualname} line {frame.f_lineno}"
        awaited = getattr(awaited, "cr_await", None) or getattr(awaited, "ag_await", None)
    return place
