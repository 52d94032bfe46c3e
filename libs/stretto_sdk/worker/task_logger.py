"""What a body says of its work: lines of its task's log, from any thread.

Never blocks and never raises for what the kernel does: what cannot be kept is dropped and counted.
Whoever may read runs may read task logs: no secret belongs in one.
"""

from __future__ import annotations

import logging
import threading
import traceback
from collections.abc import Callable
from contextvars import ContextVar

from stretto.tasklog.v1.task_log_pb2 import LOG_STREAM_LOG

from stretto_sdk.worker.bodies import Call
from stretto_sdk.worker.log_forwarder import TaskLogWriter

WAITING_BYTES_MAX = 256 * 1024
"""Of one body, on their way to the protocol's loop."""

_current: ContextVar[TaskLogger | None] = ContextVar("stretto_task_logger", default=None)


class TaskLogger:
    """`ctx.log`: call it, or one of its levels, with a message and fields.

        >>> ctx.log("copied", file=name)
        >>> ctx.log.warning("slow disk", seconds=3.2)

    Messages of the standard library's `logging` come here with a TaskLogHandler.
    """

    def __init__(self, log: TaskLogWriter, post: Callable[[Call], None]) -> None:
        self._log = log
        self._post = post
        self._lock = threading.Lock()
        self._waiting = bytearray()
        self._dropped_bytes = 0
        self._posted = False

    def __call__(self, message: object, **fields: object) -> None:
        """Log at the level INFO."""
        self._say("INFO", message, fields)

    def debug(self, message: object, **fields: object) -> None:
        """Log at the level DEBUG."""
        self._say("DEBUG", message, fields)

    def info(self, message: object, **fields: object) -> None:
        """Log at the level INFO."""
        self._say("INFO", message, fields)

    def warning(self, message: object, **fields: object) -> None:
        """Log at the level WARNING."""
        self._say("WARNING", message, fields)

    def error(self, message: object, **fields: object) -> None:
        """Log at the level ERROR."""
        self._say("ERROR", message, fields)

    def exception(self, message: object, **fields: object) -> None:
        """Log at the level ERROR with the exception being handled."""
        self._say("ERROR", message, fields)
        self.write(traceback.format_exc())

    def write(self, text: str) -> None:
        """Add text as it is; a line feed follows it unless it ends with one."""
        content = text.encode("utf-8", "replace")
        if not content.endswith(b"\n"):
            content += b"\n"
        with self._lock:
            if len(self._waiting) + len(content) > WAITING_BYTES_MAX:
                self._dropped_bytes += len(content)
            else:
                self._waiting += content
            if self._posted:
                return
            self._posted = True
        self._post(self._hand_over)

    def _say(self, level: str, message: object, fields: dict[str, object]) -> None:
        said = "".join(f" {name}={_shown(value)}" for name, value in fields.items())
        self.write(f"{level} {message}{said}")

    def _hand_over(self) -> None:
        """On the protocol's loop."""
        with self._lock:
            content, self._waiting = self._waiting, bytearray()
            dropped_bytes, self._dropped_bytes = self._dropped_bytes, 0
            self._posted = False
        self._log.write(LOG_STREAM_LOG, bytes(content))
        if dropped_bytes:
            self._log.drop(dropped_bytes)


class TaskLogHandler(logging.Handler):
    """Sends what is logged inside a task's body to the task's log; elsewhere it does nothing.

    >>> logging.getLogger().addHandler(TaskLogHandler())
    """

    def __init__(self, level: int = logging.NOTSET) -> None:
        super().__init__(level)
        self.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        """See `logging.Handler`."""
        logger = _current.get()
        if logger is not None:
            logger.write(self.format(record))


def enter(logger: TaskLogger) -> None:
    """What runs in this context from now on is this body's."""
    _current.set(logger)


def _shown(value: object) -> str:
    text = str(value)
    return text if text and text.isprintable() and " " not in text else repr(text)
