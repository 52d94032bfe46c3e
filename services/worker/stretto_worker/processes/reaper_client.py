"""The worker's side of its reaper: starts commands, signals their groups, hears how they ended.

The reaper is started again when it dies; what it ran is lost then: groups are killed from here by
the ids it told, and their bodies are told so. Everything is called on one event loop.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

REAPER_PATH = Path(__file__).with_name("reaper.py")
ANSWER_BYTES_MAX = 8_192


@dataclass(frozen=True, slots=True)
class Exited:
    """The first process of the group ended; the rest of it was killed.

    code: the exit status; -N when signal N ended it.
    """

    code: int


@dataclass(frozen=True, slots=True)
class NotStarted:
    """The program could not be run."""

    errno: int
    text: str


@dataclass(frozen=True, slots=True)
class ReaperGone:
    """The reaper died; whatever the command did is unknown, and it is killed."""


End = Exited | NotStarted | ReaperGone


@dataclass(slots=True)
class _Group:
    ended: asyncio.Future[End]
    pid: int | None = None


class ReaperClient:
    """Starts commands through one reaper process.

    environ: what every command inherits; `env` of a command comes on top.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = dict(environ)
        self._groups: dict[int, _Group] = {}
        self._last_id = 0
        self._socket: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def reaper_pid(self) -> int | None:
        """The process id of the reaper that runs now."""
        return None if self._process is None else self._process.pid

    def start(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: str,
        standard: tuple[int, int, int],
    ) -> tuple[int, asyncio.Future[End]]:
        """Start a command in a group of its own; return its id here and the future of its end.

        standard: descriptors of stdin, stdout and stderr; the caller closes them afterwards.
        """
        connected = self._connect()
        self._last_id += 1
        name = self._last_id
        group = _Group(asyncio.get_running_loop().create_future())
        command = {"argv": list(argv), "env": {**self._environ, **env}, "cwd": cwd}
        with tempfile.TemporaryFile() as file:
            file.write(json.dumps(command).encode())
            file.flush()
            self._groups[name] = group
            self._send(connected, {"start": name}, (*standard, file.fileno()))
        return name, group.ended

    def signal(self, name: int, number: int) -> None:
        """Send a signal to a whole group; one that has ended is left alone."""
        if name in self._groups and self._socket is not None:
            self._send(self._socket, {"id": name, "signal": number})

    async def close(self) -> None:
        """Kill every group and end the reaper; returns once it has ended."""
        process = self._process
        self._lose()
        if process is not None:
            await asyncio.get_running_loop().run_in_executor(None, process.wait)

    def _send(
        self, connected: socket.socket, request: dict[str, int], descriptors: Sequence[int] = ()
    ) -> None:
        """Send a request; a reaper that is behind slows us down, nothing is dropped.

        While it cannot take more its answers are heard: they may be what it waits to get rid of.
        """
        packet = json.dumps(request).encode()
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))]
        while self._socket is connected:
            try:
                # Not `send_fds`, which drops its flags.
                connected.sendmsg([packet], ancillary if descriptors else [], socket.MSG_DONTWAIT)
            except BlockingIOError:
                # Not `select`, which knows no descriptor above 1,023.
                poll = select.poll()
                poll.register(connected, select.POLLIN | select.POLLOUT)
                poll.poll()
                self._hear()
            except OSError:
                self._lose()
            else:
                return

    def _connect(self) -> socket.socket:
        if self._socket is not None:
            return self._socket
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", str(REAPER_PATH), str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                # Any command can read its parent's environment: ours holds the token.
                env=self._environ,
                start_new_session=True,
            )
        self._socket = ours
        asyncio.get_running_loop().add_reader(ours.fileno(), self._hear)
        return ours

    def _hear(self) -> None:
        assert self._socket is not None, "only a connected socket is watched"
        while self._socket is not None:
            try:
                packet = self._socket.recv(ANSWER_BYTES_MAX, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            except OSError:
                packet = b""
            if not packet:
                self._lose()
                return
            self._answered(json.loads(packet))

    def _answered(self, answer: dict[str, int | str]) -> None:
        name = int(answer["id"])
        group = self._groups.get(name)
        if group is None:
            return
        if "pid" in answer:
            group.pid = int(answer["pid"])
            return
        del self._groups[name]
        if group.ended.done():
            return
        if "errno" in answer:
            group.ended.set_result(NotStarted(int(answer["errno"]), str(answer["text"])))
        else:
            group.ended.set_result(Exited(os.waitstatus_to_exitcode(int(answer["status"]))))

    def _lose(self) -> None:
        """The connection ends: the reaper kills all groups, and so do we, in case it is dead."""
        if self._socket is None:
            return
        asyncio.get_running_loop().remove_reader(self._socket.fileno())
        self._socket.close()
        self._socket = None
        groups, self._groups = self._groups, {}
        for group in groups.values():
            if group.pid is not None:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(group.pid, signal.SIGKILL)
            if not group.ended.done():
                group.ended.set_result(ReaperGone())
        if self._process is not None:
            self._process.poll()
