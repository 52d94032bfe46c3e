"""The set-up of structlog: JSON lines, or a console when a person watches; called once, in main.

Event names are dotted constants (`attempt.leased`), values are keys. Payloads are never logged:
bytes show as their length, protobuf messages as their type, secrets as nothing.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from typing import Any, TextIO

import structlog
from structlog.typing import Processor

VALUE_CHARS_MAX = 2_000


def configure_logs(
    *, service: str, level: str = "info", stream: TextIO | None = None, json: bool | None = None
) -> None:
    """Make structlog write to `stream` (standard error) from `level` on.

    json: one object a line; None decides by whether the stream is a terminal. Raises ValueError for
    an unknown level. The last call wins.
    """
    levels = logging.getLevelNamesMapping()
    if level.upper() not in levels:
        raise ValueError(f"log level {level!r} is not one of debug, info, warning, error")
    target = stream or sys.stderr
    as_json = not target.isatty() if json is None else json
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            _named(service),
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _show_nothing_private,
            *(_json_renderers() if as_json else _console_renderers()),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(levels[level.upper()]),
        logger_factory=structlog.WriteLoggerFactory(file=target),
        cache_logger_on_first_use=False,
    )


def _named(service: str) -> Processor:
    def add(
        _logger: object, _method: str, event: MutableMapping[str, Any]
    ) -> MutableMapping[str, Any]:
        event["service"] = service
        return event

    return add


def _json_renderers() -> list[Processor]:
    return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(default=repr)]


def _console_renderers() -> list[Processor]:
    # Plain tracebacks: the rich ones show local variables, payloads among them.
    from structlog.dev import ConsoleRenderer, plain_traceback  # noqa: PLC0415

    return [ConsoleRenderer(exception_formatter=plain_traceback)]


def _show_nothing_private(
    _logger: object, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    for key, value in event.items():
        if value is None or isinstance(value, bool | int | float):
            continue
        if isinstance(value, str):
            if len(value) > VALUE_CHARS_MAX:
                event[key] = f"{value[:VALUE_CHARS_MAX]}... ({len(value)} characters)"
        elif isinstance(value, bytes | bytearray | memoryview):
            event[key] = f"<{len(value)} bytes>"
        elif hasattr(value, "DESCRIPTOR") and hasattr(value, "SerializeToString"):
            event[key] = f"<{type(value).__name__}>"
    return event
