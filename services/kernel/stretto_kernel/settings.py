"""The kernel's settings: the only reader of the environment.

Frozen, checked at start, logged once without secrets. Every limit has its unit in its name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from stretto_core.ids import Partition
from stretto_core.variables import Variable

from stretto_kernel.app.follow_limits import FollowLimits

ROLES: Final = ("kernel", "projector")
LOG_FORMATS: Final = ("json", "console")
MIB: Final = 1024 * 1024
COUNT_MAX: Final = 1_000_000
DEFAULT_PARTITION: Final = Partition("p0")


class SettingsError(ValueError):
    """A setting is missing or wrong; the message names it and what it must be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a kernel process is started with.

    postgres_dsn: connection string of the record; never logged.
    nats_url: where the projector relays the log to; never logged; empty = it does not.
    listen_address: host:port; port 0 takes a free one.
    metrics_address: host:port of /metrics for Prometheus; empty = not served.
    address_file: where the bound address is written once calls are taken; None = nowhere.
    tokens_file: bearer tokens; None = anonymous callers on loopback only.
    queue_limits: most open leases of a queue at once, until a fact says another.
    drain_grace_s: how long leases may go on after SIGTERM.
    task_log_bytes_max: how much of what one attempt writes is kept.
    seal_events_max, seal_interval_s: the log is sealed after so many events, or so long after the
        first event that is not.
    task_log_keep_days, task_log_ended_keep_days: what attempts wrote is swept when it is that old,
        and all that a run wrote once it has ended and its newest is that old.
    follow: how many follow runs and the log, and what is kept for one who does not take it.
    """

    postgres_dsn: str = field(repr=False)
    nats_url: str = field(default="", repr=False)
    listen_address: str = "127.0.0.1:0"
    metrics_address: str = ""
    address_file: Path | None = None
    tokens_file: Path | None = None
    partition: Partition = DEFAULT_PARTITION
    queue_limits: Mapping[str, int] = field(default_factory=dict)
    log_format: str = "json"
    drain_grace_s: float = 10.0
    task_log_bytes_max: int = 16 * MIB
    seal_events_max: int = 1_000
    seal_interval_s: float = 10.0
    task_log_keep_days: float = 30.0
    task_log_ended_keep_days: float = 7.0
    follow: FollowLimits = field(default_factory=FollowLimits)
    ended_runs_max: int = 2_000
    sessions_max: int = 1_000

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> Settings:
        """Return the settings the environment gives. Raises SettingsError naming the variable."""
        return cls(
            postgres_dsn=_required(environ, "STRETTO_POSTGRES_DSN"),
            nats_url=environ.get("STRETTO_NATS_URL", ""),
            listen_address=_address(environ, "STRETTO_LISTEN", default="127.0.0.1:0"),
            metrics_address=_address(environ, "STRETTO_METRICS_LISTEN", default=""),
            address_file=_path(environ.get("STRETTO_ADDRESS_FILE", "")),
            tokens_file=_path(environ.get("STRETTO_TOKENS_FILE", "")),
            partition=_partition(environ.get("STRETTO_PARTITION", "p0")),
            queue_limits=parse_queue_limits(environ.get("STRETTO_QUEUE_LIMITS", "")),
            log_format=_choice(environ, "STRETTO_LOG_FORMAT", LOG_FORMATS),
            drain_grace_s=_seconds(environ, "STRETTO_DRAIN_GRACE_S", default=10.0),
            task_log_bytes_max=_bytes(environ, "STRETTO_TASK_LOG_BYTES_MAX", default=16 * MIB),
            seal_events_max=_count(
                environ, "STRETTO_SEAL_EVENTS_MAX", default=1_000, largest=10_000
            ),
            seal_interval_s=_seconds(environ, "STRETTO_SEAL_INTERVAL_S", default=10.0),
            task_log_keep_days=_days(environ, "STRETTO_TASK_LOG_KEEP_DAYS", default=30.0),
            task_log_ended_keep_days=_days(
                environ, "STRETTO_TASK_LOG_ENDED_KEEP_DAYS", default=7.0
            ),
            follow=_follow(environ),
        )


VARIABLES: Final = (
    Variable("STRETTO_POSTGRES_DSN", "postgres_dsn", "The record.", "required"),
    Variable("STRETTO_NATS_URL", "nats_url", "Of the projector: where the log is relayed to."),
    Variable("STRETTO_LISTEN", "listen_address", "`HOST:PORT`; port 0 takes a free one."),
    Variable("STRETTO_METRICS_LISTEN", "metrics_address", "`HOST:PORT` of `/metrics`."),
    Variable("STRETTO_ADDRESS_FILE", "address_file", "Where the address is written."),
    Variable("STRETTO_TOKENS_FILE", "tokens_file", "`tokens.json`: who may call it."),
    Variable("STRETTO_PARTITION", "partition", "Which partition it owns."),
    Variable(
        "STRETTO_QUEUE_LIMITS",
        "queue_limits",
        "Most open leases at once, until `stretto queue set` says another: `gpu=2,mail=10`.",
    ),
    Variable("STRETTO_LOG_FORMAT", "log_format", "`json` or `console`."),
    Variable("STRETTO_DRAIN_GRACE_S", "drain_grace_s", "How long leases go on after SIGTERM."),
    Variable(
        "STRETTO_TASK_LOG_BYTES_MAX", "task_log_bytes_max", "What is kept of an attempt's output."
    ),
    Variable(
        "STRETTO_SEAL_EVENTS_MAX",
        "seal_events_max",
        "The log is sealed after so many events, at most 10000; a proof reads as many.",
    ),
    Variable(
        "STRETTO_SEAL_INTERVAL_S",
        "seal_interval_s",
        "The log is sealed so long after the first event that is not.",
    ),
    Variable("STRETTO_TASK_LOG_KEEP_DAYS", "task_log_keep_days", "How long output is kept."),
    Variable(
        "STRETTO_TASK_LOG_ENDED_KEEP_DAYS",
        "task_log_ended_keep_days",
        "How long the output of an ended run is kept.",
    ),
    Variable("STRETTO_WATCHERS_MAX", "follow.watchers_max", "Most watchers of runs."),
    Variable("STRETTO_SUBSCRIBERS_MAX", "follow.subscribers_max", "Most subscribers of the log."),
    Variable(
        "STRETTO_SUBSCRIBER_BUFFER_EVENTS_MAX",
        "follow.buffer_events_max",
        "What waits for one subscriber until it is cut off.",
    ),
    Variable(
        "STRETTO_SUBSCRIBER_BUFFER_BYTES_MAX",
        "follow.buffer_bytes_max",
        "The same in bytes.",
    ),
)
"""What the environment may say, for docs/settings.md."""


def parse_queue_limits(text: str) -> dict[str, int]:
    """Return the limits in "queue=count,queue=count". Raises SettingsError."""
    limits: dict[str, int] = {}
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        name, _, count = part.partition("=")
        if not re.fullmatch(r"[A-Za-z0-9._-]{1,64}", name) or not count.isdecimal():
            raise SettingsError(f"STRETTO_QUEUE_LIMITS: {part!r} is not queue=count")
        limits[name] = int(count)
    return limits


def _required(environ: Mapping[str, str], name: str) -> str:
    value = environ.get(name, "")
    if not value:
        raise SettingsError(f"{name} is required")
    return value


def _address(environ: Mapping[str, str], name: str, *, default: str) -> str:
    text = environ.get(name, "") or default
    host, _, port = text.rpartition(":")
    if text and (not host or not port.isdecimal() or int(port) > 65_535):
        raise SettingsError(f"{name}: {text!r} is not host:port")
    return text


def _path(text: str) -> Path | None:
    return Path(text) if text else None


def _partition(text: str) -> Partition:
    if not re.fullmatch(r"p[0-9]{1,4}", text):
        raise SettingsError(f"STRETTO_PARTITION: {text!r} is not p0 ... p9999")
    return Partition(text)


def _choice(environ: Mapping[str, str], name: str, choices: tuple[str, ...]) -> str:
    value = environ.get(name, choices[0])
    if value not in choices:
        raise SettingsError(f"{name}: {value!r} is none of {', '.join(choices)}")
    return value


def _seconds(environ: Mapping[str, str], name: str, *, default: float) -> float:
    return _number(environ, name, "seconds", default=default, largest=3_600)


def _days(environ: Mapping[str, str], name: str, *, default: float) -> float:
    return _number(environ, name, "days", default=default, largest=36_500)


def _number(
    environ: Mapping[str, str], name: str, unit: str, *, default: float, largest: int
) -> float:
    text = environ.get(name, "")
    try:
        value = float(text) if text else default
    except ValueError:
        value = -1.0
    if not 0 <= value <= largest:
        raise SettingsError(f"{name}: {text!r} is not a number of {unit}, 0-{largest}")
    return value


def _follow(environ: Mapping[str, str]) -> FollowLimits:
    default = FollowLimits()
    return FollowLimits(
        watchers_max=_count(environ, "STRETTO_WATCHERS_MAX", default=default.watchers_max),
        subscribers_max=_count(environ, "STRETTO_SUBSCRIBERS_MAX", default=default.subscribers_max),
        buffer_events_max=_count(
            environ, "STRETTO_SUBSCRIBER_BUFFER_EVENTS_MAX", default=default.buffer_events_max
        ),
        buffer_bytes_max=_bytes(
            environ, "STRETTO_SUBSCRIBER_BUFFER_BYTES_MAX", default=default.buffer_bytes_max
        ),
    )


def _count(environ: Mapping[str, str], name: str, *, default: int, largest: int = COUNT_MAX) -> int:
    text = environ.get(name, "") or str(default)
    if not text.isdecimal() or not 1 <= int(text) <= largest:
        raise SettingsError(f"{name}: {text!r} is not a number from 1 to {largest}")
    return int(text)


def _bytes(environ: Mapping[str, str], name: str, *, default: int) -> int:
    text = environ.get(name, "") or str(default)
    if not text.isdecimal() or not int(text) <= 1024 * MIB:
        raise SettingsError(f"{name}: {text!r} is not a number of bytes up to {1024 * MIB}")
    return int(text)
