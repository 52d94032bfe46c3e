"""The worker service's settings, all from the environment, checked once at the start."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from stretto_core.localstack.data_directory import default_data_directory
from stretto_core.rpc.tokens import read_token_file
from stretto_core.telemetry.secret import Secret

SLOT_COUNT_DEFAULT = 16
SLOT_COUNT_MAX = 10_000


class SettingsError(Exception):
    """The environment does not describe a worker; the message names the variable."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """kernel_address: host:port. worker_name: None takes a free identity of the data directory.

    tokens_directory: whose tokens may steer this process over its control port; None: callers on
    this machine without a token.
    """

    kernel_address: str
    token: Secret | None
    data_directory: Path
    worker_name: str | None
    queues: tuple[str, ...]
    labels: Mapping[str, str]
    slot_count: int
    drain_finish_s: float
    stop_grace_s: float
    tokens_directory: Path | None
    log_level: str

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> Settings:
        """Return the settings. Raises SettingsError, TokenRefused.

        STRETTO_KERNEL_ADDRESS, STRETTO_TOKEN or STRETTO_TOKEN_FILE, STRETTO_DATA_DIR,
        STRETTO_WORKER_NAME, STRETTO_WORKER_QUEUES (a,b), STRETTO_WORKER_LABELS (k=v,k=v),
        STRETTO_WORKER_SLOTS, STRETTO_DRAIN_S, STRETTO_STOP_GRACE_S, STRETTO_TOKENS_FILE,
        STRETTO_LOG_LEVEL.
        """
        tokens_file = environ.get("STRETTO_TOKENS_FILE")
        return cls(
            kernel_address=environ.get("STRETTO_KERNEL_ADDRESS") or "127.0.0.1:7788",
            token=_token(environ),
            data_directory=default_data_directory(environ),
            worker_name=environ.get("STRETTO_WORKER_NAME") or None,
            queues=_words(environ.get("STRETTO_WORKER_QUEUES", "")),
            labels=_labels(environ.get("STRETTO_WORKER_LABELS", "")),
            slot_count=_slots(environ.get("STRETTO_WORKER_SLOTS")),
            drain_finish_s=_seconds(environ, "STRETTO_DRAIN_S", 30.0),
            stop_grace_s=_seconds(environ, "STRETTO_STOP_GRACE_S", 5.0),
            tokens_directory=Path(tokens_file).parent if tokens_file else None,
            log_level=environ.get("STRETTO_LOG_LEVEL", "info"),
        )


def _token(environ: Mapping[str, str]) -> Secret | None:
    if environ.get("STRETTO_TOKEN"):
        return Secret(environ["STRETTO_TOKEN"])
    path = environ.get("STRETTO_TOKEN_FILE")
    return read_token_file(Path(path)) if path else None


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())


def _labels(text: str) -> dict[str, str]:
    labels = {}
    for word in _words(text):
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise SettingsError(f"STRETTO_WORKER_LABELS: {word!r} is not key=value")
        labels[key] = value
    return labels


def _slots(text: str | None) -> int:
    if not text:
        return SLOT_COUNT_DEFAULT
    if not text.isdecimal() or not 1 <= int(text) <= SLOT_COUNT_MAX:
        raise SettingsError(f"STRETTO_WORKER_SLOTS: {text!r} is not 1 to {SLOT_COUNT_MAX}")
    return int(text)


def _seconds(environ: Mapping[str, str], name: str, default: float) -> float:
    text = environ.get(name)
    if not text:
        return default
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= 86_400:
        raise SettingsError(f"{name}: {text!r} is not a number of seconds up to a day")
    return seconds
