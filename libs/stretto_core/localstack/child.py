"""One child process: started, awaited until ready, seen dying, stopped by escalating signals.

Owns exactly the process it started, by its pid; never signals another. On Linux the kernel sends
the child `orphan_signal` when this process dies, however it dies. Each child has its own session,
so that a Ctrl-C at the terminal reaches only the supervisor, which then drains in order.
A `Child` belongs to no event loop: it may be started in one and stopped in another.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from stretto_core.localstack.account import Account
from stretto_core.localstack.log_lines import readable_end

LOG_BYTES_MAX = 16 << 20
LOG_TAIL_BYTES = 2_000
READY_POLL_S = 0.02
_PR_SET_PDEATHSIG = 1


class ChildFailed(Exception):
    """A child ended, or did not become ready in time; the message holds the end of its log."""


@dataclass(frozen=True, slots=True)
class StopStep:
    """One step of stopping a child: a signal, and how long it may take before the next step."""

    signal: signal.Signals
    grace_ms: int


async def _prepared() -> None:
    return None


async def _ready_at_once(_pid: int) -> bool:
    return True


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildSpec:
    """What a child is.

    env: its whole environment; nothing is inherited.
    prepare: runs before every start; whatever it makes must be safe to make again.
    ready: asked with the child's pid until it answers True; it may raise OSError for "not yet".
    stop_steps: in order; SIGKILL follows the last.
    account: run as this account; None runs as ourselves.
    """

    name: str
    argv: tuple[str, ...]
    log_path: Path
    env: Mapping[str, str] = field(default_factory=dict)
    prepare: Callable[[], Awaitable[None]] = _prepared
    ready: Callable[[int], Awaitable[bool]] = _ready_at_once
    ready_timeout_ms: int = 30_000
    stop_steps: tuple[StopStep, ...] = (StopStep(signal.SIGTERM, 15_000),)
    orphan_signal: signal.Signals = signal.SIGKILL
    account: Account | None = None
    cwd: Path | None = None


class Child:
    """A process of a spec; may be started again after it ended."""

    def __init__(self, spec: ChildSpec) -> None:
        self.spec = spec
        self._process: subprocess.Popen[bytes] | None = None
        self._log_start = 0  # Where in its log this process began to write.

    @property
    def pid(self) -> int | None:
        """The process id while it runs and until its end was seen, else None."""
        process = self._process
        return process.pid if process is not None and process.returncode is None else None

    async def start(self) -> None:
        """Prepare and start the process. Raises OSError, and what the spec's `prepare` raises."""
        assert self.pid is None, "a running child is stopped before it is started again"
        spec = self.spec
        await spec.prepare()
        _rotate(spec.log_path)
        account = spec.account
        with spec.log_path.open("ab") as log:
            self._log_start = log.tell()
            self._process = subprocess.Popen(  # noqa: ASYNC220 - own argv; a fork is short
                spec.argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=dict(spec.env),
                cwd=spec.cwd,
                start_new_session=True,
                user=account.uid if account else None,
                group=account.gid if account else None,
                extra_groups=() if account else None,
                preexec_fn=_bind_to_parent(spec.orphan_signal),  # noqa: PLW1509 - two system calls
            )

    async def wait_ready(self) -> None:
        """Return once the spec's probe answers True. Raises ChildFailed when it ends or is late.

        A child that is late is left running: the caller stops it.
        """
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + self.spec.ready_timeout_ms / 1_000
        ended = asyncio.ensure_future(self.wait_ended())
        try:
            while not ended.done():
                if await self._probe():
                    return
                if loop.time() > deadline_s:
                    raise ChildFailed(self._report(f"not ready in {self.spec.ready_timeout_ms} ms"))
                await asyncio.wait({ended}, timeout=READY_POLL_S)
            raise ChildFailed(
                self._report(f"ended with status {ended.result()} before it was ready")
            )
        finally:
            ended.cancel()

    async def wait_ended(self) -> int:
        """Return the exit status once the process ended (-N: by signal N). Any number may wait."""
        process = self._process
        assert process is not None, "only a started child ends"
        if process.poll() is None:
            await _pid_ended(process)
        return process.wait()

    async def stop(self) -> None:
        """End the process by the spec's steps, then SIGKILL. Nothing happens without one."""
        await self.stop_by((*self.spec.stop_steps, StopStep(signal.SIGKILL, 0)))

    async def stop_by(self, steps: tuple[StopStep, ...]) -> None:
        """End the process by `steps`; after the last its end is awaited without a limit."""
        for step in steps:
            if self.pid is None:
                return
            self.send(step.signal)
            with contextlib.suppress(TimeoutError):
                limit_s = None if step is steps[-1] else step.grace_ms / 1_000
                await asyncio.wait_for(self.wait_ended(), limit_s)
                return

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the process; nothing happens once its end was seen."""
        if self._process is not None:
            self._process.send_signal(number)

    async def _probe(self) -> bool:
        pid = self.pid
        try:
            return pid is not None and await self.spec.ready(pid)
        except OSError:
            return False

    def _report(self, what: str) -> str:
        end = readable_end(self.log_tail())
        where = f"the end of {self.spec.log_path}:\n{end}" if end else f"see {self.spec.log_path}"
        return f"{self.spec.name} {what}; {where}"

    def log_tail(self) -> str:
        """Return the last of what the newest process logged, 2,000 bytes at most; "" for nothing.

        What an earlier one said is in the log too, and was about something else.
        """
        try:
            with self.spec.log_path.open("rb") as log:
                log.seek(max(self._log_start, log.seek(0, os.SEEK_END) - LOG_TAIL_BYTES))
                return log.read().decode(errors="replace").strip()
        except OSError:
            return ""


def _rotate(log_path: Path) -> None:
    log_path.parent.mkdir(parents=True, exist_ok=True)
    if log_path.exists() and log_path.stat().st_size > LOG_BYTES_MAX:
        log_path.replace(log_path.with_name(log_path.name + ".1"))


def _bind_to_parent(orphan_signal: signal.Signals) -> Callable[[], None] | None:
    """Return what the child runs between fork and exec; everything it needs is loaded before."""
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None)
    parent_pid = os.getpid()

    def bind() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, int(orphan_signal), 0, 0, 0)
        if os.getppid() != parent_pid:  # The parent died before the line above.
            os._exit(1)

    return bind


async def _pid_ended(process: subprocess.Popen[bytes]) -> None:
    """Return once the process can be reaped. Its pid cannot be reused before: only we reap it."""
    if not hasattr(os, "pidfd_open"):
        await asyncio.to_thread(process.wait)
        return
    loop = asyncio.get_running_loop()
    readable: asyncio.Future[None] = loop.create_future()
    descriptor = os.pidfd_open(process.pid)
    try:
        loop.add_reader(descriptor, _settle, readable)
        await readable
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


def _settle(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
