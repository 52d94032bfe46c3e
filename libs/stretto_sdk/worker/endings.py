"""How values, exceptions and refusals of bodies become endings. Pure."""

from __future__ import annotations

import re
import traceback
from datetime import timedelta
from pathlib import Path
from types import TracebackType

from stretto.common.v1 import failure_pb2
from stretto.common.v1.payload_pb2 import Payload
from stretto_core.errors import InvalidArgument

from stretto_sdk.durations import duration_of
from stretto_sdk.shredded import SHREDDED
from stretto_sdk.strict_json import parse_json, to_json
from stretto_sdk.value_sizes import READ_BYTES_MAX
from stretto_sdk.worker.effects import Ending, Failed

PAYLOAD_BYTES_MAX = 64 * 1024
TRACEBACK_CHARACTERS_MAX = 8_000
_OUR_FILES = f"{Path(__file__).parent}/"


class TaskFailed(Exception):
    """Raised by a task to say why it failed, and whether another attempt may help.

    reason: a stable UPPER_SNAKE word that retry policies switch on.
    message: one sentence for a person; the reason by default.
    details: anything structured, as JSON.

        >>> raise TaskFailed("CARD_DECLINED", "The bank refused.", retryable=False)
    """

    def __init__(
        self, reason: str, message: str = "", *, retryable: bool = True, details: object = None
    ) -> None:
        super().__init__(message or reason)
        self.reason = reason
        self.message = message or reason
        self.retryable = retryable
        self.details = details


class RetryLater(TaskFailed):
    """Raised by a task that another attempt may help, but not before a span of time has passed.

    after: text ("90s", "5m") or a timedelta, from the end of this attempt; the task waits for it or
    for the backoff of its retry policy, whichever is longer, a day at most. It consumes a try.

        >>> raise RetryLater(after="90s", message="The quota is used up.")
    """

    def __init__(
        self,
        *,
        after: str | timedelta,
        reason: str = "RETRY_LATER",
        message: str = "",
        details: object = None,
    ) -> None:
        super().__init__(reason, message, details=details)
        self.after = duration_of(after)


def failed(reason: str, message: str, *, retryable: bool = False) -> Failed:
    """Return a failure as an ending."""
    return Failed(failure_pb2.Failure(reason=reason, message=message, retryable=retryable))


def payload_of(value: object, *, source: str, bytes_max: int = PAYLOAD_BYTES_MAX) -> Payload:
    """Return a value as a payload: bytes as they are, all else as JSON.

    Raises InvalidArgument when it cannot be JSON or is larger than `bytes_max`.
    """
    if isinstance(value, bytes | bytearray | memoryview):
        payload = Payload(data=bytes(value))
        size_bytes = len(payload.data)
    else:
        payload = Payload(json=to_json(value, source=source))
        size_bytes = len(payload.json.encode())
    if size_bytes > bytes_max:
        raise InvalidArgument(
            f"{source} has {size_bytes} bytes; at most {bytes_max} fit",
            reason="PAYLOAD_TOO_LARGE",
            bytes_max=str(bytes_max),
        )
    return payload


def value_of(payload: Payload, *, source: str) -> object:
    """Return what a payload holds: parsed JSON, bytes, SHREDDED. Raises InvalidArgument."""
    match payload.WhichOneof("value"):
        case "json":
            return parse_json(payload.json, source=source, bytes_max=READ_BYTES_MAX)
        case "data":
            return payload.data
        case "shredded":
            return SHREDDED
        case None:
            return None
    raise InvalidArgument(f"{source} is a blob that was not fetched")


def ending_of_error(error: BaseException) -> Ending:
    """Return the failure that an exception of a body stands for.

    A TaskFailed says it itself. Any other exception may succeed next time: it is retryable, under
    its class's name (ValueError: VALUE_ERROR), with the traceback in the details.
    """
    if isinstance(error, TaskFailed):
        reason, message = _reason_word(str(error.reason)), _clean(str(error.message))
        ending = failed(reason, message, retryable=bool(error.retryable))
        if isinstance(error, RetryLater):
            ending.failure.retry_after.CopyFrom(error.after)
        if error.details is not None:
            try:
                details = payload_of(error.details, source="the failure's details")
            except InvalidArgument as refusal:
                details = Payload(json=to_json({"lost": refusal.message}, source="it"))
            ending.failure.details.CopyFrom(details)
        return ending
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", type(error).__name__)
    ending = failed(_reason_word(words), _message_of(error), retryable=True)
    frames = _of_the_body(error.__traceback__)
    lines = "".join(traceback.format_exception(type(error), error, frames))
    lines = lines[-TRACEBACK_CHARACTERS_MAX:]
    traced = to_json({"traceback": _clean(lines)}, source="it")
    ending.failure.details.CopyFrom(Payload(json=traced))
    return ending


def _of_the_body(frames: TracebackType | None) -> TracebackType | None:
    """Return a traceback without the frames that led to the body; all of it if it is all ours."""
    below = frames
    while below is not None and below.tb_frame.f_code.co_filename.startswith(_OUR_FILES):
        below = below.tb_next
    return below or frames


def _reason_word(text: str) -> str:
    """Return the text as a word that the kernel takes: _Flaky and "flaky!" both are FLAKY."""
    word = re.sub(r"[^A-Z0-9]+", "_", text.upper())
    return word.lstrip("_0123456789").rstrip("_") or "ERROR"


def _message_of(error: BaseException) -> str:
    try:
        text = str(error)
    except Exception as broken:  # `__str__` is the body's code, too.
        text = f"its message cannot be read: {type(broken).__name__}"
    return _clean(text) or type(error).__name__


def _clean(text: str) -> str:
    """Surrogates, from undecodable bytes in a message, are no UTF-8."""
    return text.encode("utf-8", "replace").decode()
