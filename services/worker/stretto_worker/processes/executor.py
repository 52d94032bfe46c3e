"""The `process` executor: runs a command per attempt and turns its output into the result.

The arguments are described in stretto_sdk/arguments/process.py, what an end means in
domain/results.py. The process finds itself named in STRETTO_RUN, STRETTO_TASK, STRETTO_ATTEMPT,
STRETTO_EPOCH and STRETTO_IDEMPOTENCY_KEY, and the pipe to its run's blackboard, if it asked for
one, in STRETTO_BOARD. A stop is SIGTERM to the whole group, then SIGKILL after
a grace; an end of the first process is the end of the group. Runs on the protocol's loop and never
blocks it.
"""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial

from stretto.tasklog.v1.task_log_pb2 import LOG_STREAM_STDERR, LOG_STREAM_STDOUT
from stretto.work.v1 import work_pb2
from stretto_core.clock import NS_PER_S, Clock
from stretto_core.errors import Refusal, Unavailable
from stretto_core.ids import IdSource
from stretto_sdk.arguments.process import (
    Command,
    OutputForm,
    parse_command,
)
from stretto_sdk.arguments.secret_references import FindSecret, SecretUnavailable
from stretto_sdk.blackboard import Blackboard
from stretto_sdk.worker.artifacts import artifact_of
from stretto_sdk.worker.context import idempotency_key
from stretto_sdk.worker.effects import (
    Ending,
    LeaseKey,
    SpawnAnswered,
    Stop,
    StopKind,
    Stopped,
    Succeeded,
    key_of,
)
from stretto_sdk.worker.endings import failed, value_of
from stretto_sdk.worker.log_forwarder import TaskLogWriter
from stretto_sdk.worker.ports import Reports

from stretto_worker.body_tasks import ending_of_task
from stretto_worker.domain.environment import environment_of
from stretto_worker.domain.redaction import Redaction
from stretto_worker.domain.results import STDERR_TAIL_BYTES, ending_of_exit, ending_of_no_start
from stretto_worker.processes.artifact_files import ArtifactMissing, find_artifacts
from stretto_worker.processes.board_pipe import BoardPipe
from stretto_worker.processes.capture import Capture
from stretto_worker.processes.reaper_client import Exited, NotStarted, ReaperClient, ReaperGone
from stretto_worker.processes.redacted_pipe import RedactedPipe

LARGE_BYTES = 256 * 1024
"""What is larger is parsed in a thread."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessLimits:
    """stop_grace_s, revoke_grace_s: from SIGTERM to SIGKILL when asked to stop, or lease lost.

    pipe_drain_s: how long what was written may still arrive once the group has ended.
    """

    stop_grace_s: float = 5.0
    revoke_grace_s: float = 1.0
    pipe_drain_s: float = 1.0


@dataclass(slots=True)
class _Attempt:
    group: int | None = None
    stop: Stop | None = None
    kill: asyncio.TimerHandle | None = None
    task: asyncio.Task[Ending] | None = None
    too_large: bool = False
    transports: list[asyncio.BaseTransport] = field(default_factory=list)


class ProcessExecutor:
    """Runs commands through one reaper; what they write goes to their task logs."""

    def __init__(
        self,
        reaper: ReaperClient,
        *,
        find_secret: FindSecret,
        clock: Clock,
        ids: IdSource,
        limits: ProcessLimits | None = None,
    ) -> None:
        self._reaper = reaper
        self._ids = ids
        self._find_secret = find_secret
        self._clock = clock
        self._limits = limits or ProcessLimits()
        self._attempts: dict[LeaseKey, _Attempt] = {}
        self._reports: Reports | None = None

    def attach(self, reports: Reports) -> None:
        """Remember whom to report to."""
        self._reports = reports

    def begin(self, assignment: work_pb2.Assignment) -> None:
        """Start the command of an attempt."""
        key = key_of(assignment.token)
        attempt = self._attempts[key] = _Attempt()
        attempt.task = asyncio.get_running_loop().create_task(self._run(assignment, attempt))
        attempt.task.add_done_callback(partial(self._ended, key))

    def stop(self, stop: Stop) -> None:
        """Ask the group to end, and kill it after the grace."""
        attempt = self._attempts.get(stop.key)
        if attempt is None:
            return
        attempt.stop = stop
        if attempt.group is None:
            return  # Not started yet; `_run` looks before it starts, and after.
        self._reaper.signal(attempt.group, signal.SIGTERM)
        if attempt.kill is not None:
            attempt.kill.cancel()
        loop = asyncio.get_running_loop()
        attempt.kill = loop.call_later(self._grace_s(stop), self._kill, attempt)

    def spawn_answered(self, answer: SpawnAnswered) -> None:
        """Nothing: a command spawns with its result only."""

    async def close(self) -> None:
        """Kill every group and end the reaper."""
        await self._reaper.close()
        tasks = [attempt.task for attempt in self._attempts.values() if attempt.task is not None]
        if tasks:
            await asyncio.wait(tasks)

    def _grace_s(self, stop: Stop) -> float:
        if stop.kind is StopKind.REVOKE:
            return self._limits.revoke_grace_s
        if stop.deadline_ns is None:
            return self._limits.stop_grace_s
        return max(0.0, (stop.deadline_ns - self._clock.now_ns()) / NS_PER_S)

    def _kill(self, attempt: _Attempt) -> None:
        if attempt.group is not None:
            self._reaper.signal(attempt.group, signal.SIGKILL)

    async def _run(self, assignment: work_pb2.Assignment, attempt: _Attempt) -> Ending:
        key = key_of(assignment.token)
        try:
            if assignment.ByteSize() > LARGE_BYTES:
                # What takes long to parse must not keep leases from being renewed.
                command = await asyncio.to_thread(_command_of, assignment)
            else:
                command = _command_of(assignment)
            env, redaction = environment_of(command, self._find_secret)
        except Refusal as refusal:
            return failed("INVALID_ARGUMENTS", refusal.message)
        except SecretUnavailable as missing:
            return failed(missing.reason, missing.message)
        environment = {**env, **_named(assignment)}
        assert self._reports is not None, "attached before the first body"
        log = self._reports.task_log(key)
        board: BoardPipe | None = None
        try:
            if command.blackboard:
                board = BoardPipe(self._blackboard(assignment), redaction)
                environment["STRETTO_BOARD"] = str(board.path)
            ending = await self._execute(command, environment, log, redaction, attempt)
            if board is not None and attempt.stop is None:
                ending = await board.ending(ending)
                if attempt.stop is not None:
                    return Stopped()
            if command.artifacts and isinstance(ending, Succeeded):
                ending = await self._with_artifacts(key, command, ending)
                if attempt.stop is not None:
                    return Stopped()
        except OSError as error:  # No descriptors or no disk left: it may pass.
            return failed("NOT_STARTED", str(error), retryable=True)
        finally:
            if board is not None:
                board.close()
        return ending

    def _blackboard(self, assignment: work_pb2.Assignment) -> Blackboard:
        reports = self._reports
        assert reports is not None, "attached before the first body"
        return Blackboard(
            lambda: reports.boards,
            assignment.run,
            new_id=self._ids.uuid7,
            scope=assignment.task,
            token=assignment.token,
        )

    def _ended(self, key: LeaseKey, task: asyncio.Task[Ending]) -> None:
        attempt = self._attempts.pop(key)
        if attempt.kill is not None:
            attempt.kill.cancel()
        self._kill(attempt)  # Nothing is left of the group, unless it is we who failed.
        assert self._reports is not None, "attached before the first body"
        self._reports.ended(key, ending_of_task("process", key, task))

    async def _execute(
        self,
        command: Command,
        environment: Mapping[str, str],
        log: TaskLogWriter,
        redaction: Redaction,
        attempt: _Attempt,
    ) -> Ending:
        def too_large() -> None:
            if command.output is not OutputForm.NONE:
                attempt.too_large = True
                self._kill(attempt)

        output = Capture(log, LOG_STREAM_STDOUT, command.output_bytes_max, overflow=too_large)
        errors = Capture(log, LOG_STREAM_STDERR, STDERR_TAIL_BYTES, keeps_tail=True)
        pipes = RedactedPipe(output, redaction), RedactedPipe(errors, redaction)
        try:
            with tempfile.TemporaryFile() as stdin:
                stdin.write(command.stdin)
                stdin.seek(0)
                stdout_fd = await self._pipe(attempt, lambda: pipes[0])
                try:
                    stderr_fd = await self._pipe(attempt, lambda: pipes[1])
                except BaseException:
                    os.close(stdout_fd)
                    raise
                standard = (stdin.fileno(), stdout_fd, stderr_fd)
                try:
                    if attempt.stop is not None:
                        return Stopped()
                    attempt.group, ended = self._reaper.start(
                        command.argv, env=environment, cwd=command.cwd, standard=standard
                    )
                finally:
                    os.close(stdout_fd)
                    os.close(stderr_fd)
            end = await ended
            for capture in (output, errors):
                capture.go_on()
            await asyncio.wait((output.ended, errors.ended), timeout=self._limits.pipe_drain_s)
        finally:
            for pipe in pipes:
                pipe.flush()  # One that something holds open has not ended by itself.
            for transport in attempt.transports:
                transport.close()
        match end:
            case NotStarted(errno=number, text=text):
                return ending_of_no_start(number, text)
            case _ if attempt.stop is not None:
                return Stopped()
            case _ if attempt.too_large:
                limit = command.output_bytes_max
                return failed("OUTPUT_TOO_LARGE", f"the output has more than {limit} bytes")
            case Exited(code=code):
                said = bytes(output.content), bytes(errors.content)
                if len(said[0]) > LARGE_BYTES:
                    return await asyncio.to_thread(ending_of_exit, command, code, *said)
                return ending_of_exit(command, code, *said)
            case ReaperGone():
                return failed("REAPER_GONE", "the worker's reaper ended", retryable=True)

    async def _with_artifacts(self, key: LeaseKey, command: Command, ending: Succeeded) -> Ending:
        """Put the files the command left behind; one that is not there is a failure."""
        assert self._reports is not None, "attached before the first body"
        artifacts = []
        try:
            files = await asyncio.to_thread(find_artifacts, command)
            for name, path in files.items():
                artifacts.append(artifact_of(name, await self._reports.put_blob(key, path)))
        except ArtifactMissing as missing:
            return failed("ARTIFACT_MISSING", str(missing), retryable=True)
        except Refusal as refusal:
            passing = isinstance(refusal, Unavailable)
            return failed("ARTIFACT_NOT_STORED", refusal.message, retryable=passing)
        except OSError as error:
            return failed("ARTIFACT_NOT_STORED", str(error), retryable=True)
        return replace(ending, artifacts=tuple(artifacts))

    async def _pipe(self, attempt: _Attempt, reader: Callable[[], RedactedPipe]) -> int:
        """Return the writing end of a new pipe that `reader` reads."""
        read_fd, write_fd = os.pipe()
        try:
            file = os.fdopen(read_fd, "rb", buffering=0)
            transport, _ = await asyncio.get_running_loop().connect_read_pipe(reader, file)
        except BaseException:
            os.close(write_fd)
            raise
        attempt.transports.append(transport)
        return write_fd


def _command_of(assignment: work_pb2.Assignment) -> Command:
    """Return what to run. Raises InvalidArgument with every mistake."""
    inputs = {
        name: value_of(payload, source=f"input {name}")
        for name, payload in assignment.inputs.items()
    }
    return parse_command(assignment.arguments_json, inputs)


def _named(assignment: work_pb2.Assignment) -> dict[str, str]:
    key = idempotency_key(assignment.run, assignment.task, assignment.activation)
    return {
        "STRETTO_RUN": assignment.run,
        "STRETTO_TASK": assignment.task,
        "STRETTO_ATTEMPT": str(assignment.attempt),
        "STRETTO_EPOCH": str(assignment.token.epoch),
        "STRETTO_IDEMPOTENCY_KEY": key,
    }
