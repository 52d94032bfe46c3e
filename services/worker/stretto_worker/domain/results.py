"""What a process's end means: a result, or a failure with its reason and whether to retry. Pure."""

from __future__ import annotations

import errno
import signal
from collections.abc import Mapping

from stretto.common.v1.payload_pb2 import Payload
from stretto_core.errors import Refusal
from stretto_sdk.arguments.process import OUTPUT_BYTES_MAX, Command, OutputForm
from stretto_sdk.plan_form import parse_tasks
from stretto_sdk.strict_json import parse_json, to_json
from stretto_sdk.worker.effects import Ending, Failed, Succeeded
from stretto_sdk.worker.endings import failed, payload_of

STDERR_TAIL_BYTES = 2_048
# Another attempt meets the same program; lack of memory or processes passes.
_PASSING = frozenset({errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE})


def ending_of_exit(command: Command, code: int, output: bytes, stderr_tail: bytes) -> Ending:
    """Return the ending of a process that ended by itself with `code` (-N: by signal N)."""
    if code == 0:
        return _result(command, output)
    reason, how = "EXIT_STATUS", f"exit status {code}"
    if code < 0:
        reason, how = "EXIT_SIGNAL", f"ended by {_signal_name(-code)}"
    tail = stderr_tail[-STDERR_TAIL_BYTES:].decode("utf-8", "replace").strip()
    last_line = tail.rsplit("\n", 1)[-1]
    message = f"{command.argv[0]}: {how}" + (f": {last_line}" if last_line else "")
    ending = failed(reason, _clean(message), retryable=command.is_retryable(code))
    details = {"exit_code": code, "stderr_tail": tail}
    ending.failure.details.CopyFrom(Payload(json=to_json(details, source="the details")))
    return ending


def ending_of_no_start(number: int, text: str) -> Failed:
    """Return the ending of a program that could not be run (errno and what it was about)."""
    if number in _PASSING:
        return failed("NOT_STARTED", _clean(text), retryable=True)
    return failed("PROGRAM_NOT_RUNNABLE", _clean(text))


def _result(command: Command, output: bytes) -> Ending:
    if command.output is OutputForm.NONE:
        return Succeeded()
    try:
        if command.output is OutputForm.TEXT:
            return Succeeded(_payload_of(output.decode()))
        value = None
        if output.strip():
            value = parse_json(output, source="the output", bytes_max=OUTPUT_BYTES_MAX)
        if command.spawns:
            return _spawning(value)
        return Succeeded(None if value is None else _payload_of(value))
    except UnicodeDecodeError as error:
        return failed("INVALID_OUTPUT", f"the output is not UTF-8: byte {error.start}")
    except Refusal as refusal:
        large = refusal.reason_word == "PAYLOAD_TOO_LARGE"
        if large:
            return failed("RESULT_TOO_LARGE", refusal.message)
        hint = "" if command.spawns else '; with "output": "text" any text is a result'
        return failed("INVALID_OUTPUT", f"{refusal.message}{hint}")


def _spawning(value: object) -> Ending:
    if not isinstance(value, Mapping) or not set(value) <= {"output", "spawn"}:
        wrong = 'with "spawn": true the output is {"output": ..., "spawn": [...]}'
        return failed("INVALID_OUTPUT", wrong)
    result = value.get("output")
    tasks = parse_tasks(value.get("spawn") or [], source="the spawn")
    payload = None if result is None else _payload_of(result)
    return Succeeded(payload, tuple(tasks))


def _payload_of(value: object) -> Payload:
    # Text has up to six times the bytes as JSON, and all of an output may be a result.
    return payload_of(value, source="the output", bytes_max=6 * OUTPUT_BYTES_MAX)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _clean(text: str) -> str:
    return text.encode("utf-8", "replace").decode()
