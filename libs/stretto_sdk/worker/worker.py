"""The public Worker: a process that runs python functions as tasks."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, TypeVar, overload

from stretto_core.clock.system import SystemClock
from stretto_core.ids.system import SystemIds

from stretto_sdk.endpoint import find_endpoint
from stretto_sdk.worker.bodies import BodyThread
from stretto_sdk.worker.functions import Function, FunctionTable
from stretto_sdk.worker.process import WorkerSettings, run_worker
from stretto_sdk.worker.python_executor import PythonExecutor
from stretto_sdk.worker.runtime import DrainLimits, Ended
from stretto_sdk.worker.settings import identity_of

FunctionT = TypeVar("FunctionT", bound=Function)


class Worker:
    """Leases tasks and runs the functions registered for them.

    address: host:port of the kernel; None finds it as Client does. queues: the lines it serves,
    "default" when empty. name: the worker's id, stable over restarts; None takes the next free one
    of the data directory. slots: bodies at once. labels: what tasks may require of it.
    drain: how long bodies may finish once it is asked to end.

        from stretto_sdk import Worker

        worker = Worker("localhost:7788", queues=["default"])

        @worker.task
        async def greet(ctx, name):
            return f"Hello, {name}!"

        worker.run()
    """

    def __init__(
        self,
        address: str | None = None,
        *,
        queues: Sequence[str] = (),
        name: str | None = None,
        slots: int = 16,
        labels: Mapping[str, str] | None = None,
        token: str | None = None,
        drain: DrainLimits | None = None,
    ) -> None:
        if slots < 1:
            raise ValueError("a worker needs at least one slot")
        if isinstance(queues, str):  # A text is a sequence of texts, too: it would serve letters.
            raise TypeError(f"queues is a list of names: queues=[{queues!r}]")
        self._address = address
        self._queues = tuple(queues)
        self._name = name
        self._slots = slots
        self._labels = dict(labels or {})
        self._token = token
        self._drain = drain or DrainLimits()
        self._functions = FunctionTable()

    @overload
    def task(self, function: FunctionT) -> FunctionT: ...
    @overload
    def task(
        self, *, name: str | None = None, cooperative: bool = False
    ) -> Callable[[FunctionT], FunctionT]: ...
    def task(
        self,
        function: FunctionT | None = None,
        *,
        name: str | None = None,
        cooperative: bool = False,
    ) -> FunctionT | Callable[[FunctionT], FunctionT]:
        """Register a function: tasks name it as {"function": NAME}.

        It gets the context and the task's inputs by name; what it returns is the result. Asked to
        stop, an `async def` is cancelled (asyncio.CancelledError at its next await), and its
        `finally` blocks run. With `cooperative` it watches `ctx.cancelled` itself and is cancelled
        at the deadline. A plain `def` may block: it runs in a thread with a SyncTaskContext, and
        meets TaskCancelled at its next `ctx.heartbeat()`. Nothing else can end a thread: until it
        returns it keeps its slot, also after its lease is lost, and then its result is dropped.

            >>> @worker.task(name="mail.send", cooperative=True)
            ... async def send(ctx, to, text): ...
            >>> @worker.task
            ... def compress(ctx, path): ...
        """

        def register(registered: FunctionT) -> FunctionT:
            self._functions.register(
                name or registered.__name__, registered, cooperative=cooperative
            )
            return registered

        return register if function is None else register(function)

    def run(self) -> None:
        """Work until SIGTERM or SIGINT, then drain. Blocks; call it from the main thread.

        Raises SystemExit(4) when a newer process of this worker took over, Refusal when the
        kernel will never take this worker.

            >>> worker.run()
        """
        ended = _run(self.serve(handles_signals=True))
        if ended is not Ended.DRAINED:
            raise SystemExit(ended.value)

    async def serve(self, *, handles_signals: bool = False) -> Ended:
        """Work as `run` does, inside a running loop; cancelling it ends every body at once.

        >>> async with asyncio.TaskGroup() as group:
        ...     group.create_task(worker.serve())
        """
        endpoint = find_endpoint(self._address, self._token)
        identity = identity_of(self._name)
        clock, ids = SystemClock(), SystemIds()
        executor = PythonExecutor(
            self._functions, bodies=BodyThread(), slot_count=self._slots, clock=clock, ids=ids
        )
        settings = WorkerSettings(
            address=endpoint.address,
            worker_id=identity.worker_id,
            queues=self._queues,
            labels=self._labels,
            slot_count=self._slots,
            token=endpoint.token,
            drain_limits=self._drain,
            handles_signals=handles_signals,
        )
        try:
            return await run_worker(settings, {"python": executor}, clock=clock, ids=ids)
        finally:
            identity.release()
            if handles_signals:
                for number in (signal.SIGTERM, signal.SIGINT):
                    asyncio.get_running_loop().remove_signal_handler(number)


def _run(work: Coroutine[Any, Any, Ended]) -> Ended:
    """Run on the faster loop where it is installed; bodies have a loop of their own."""
    try:
        import uvloop  # noqa: PLC0415
    except ImportError:
        return asyncio.run(work)
    return uvloop.run(work)
