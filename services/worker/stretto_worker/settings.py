"""The worker service's settings, all from the environment, checked once at the start."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from stretto_core.localstack.data_directory import default_data_directory
from stretto_core.rpc.tokens import read_token_file
from stretto_core.telemetry.secret import Secret
from stretto_core.variables import Variable

from stretto_worker.domain.host_rules import HostRules

SLOT_COUNT_DEFAULT = 16
SLOT_COUNT_MAX = 10_000
SECRET_PREFIX = "STRETTO_SECRET_"  # noqa: S105 - the beginning of a variable's name


class SettingsError(Exception):
    """The environment does not describe a worker; the message names the variable."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """kernel_address: host:port. worker_name: None takes a free identity of the data directory.

    tokens_directory: whose tokens may steer this process over its control port; None: callers on
    this machine without a token. secrets_path: a directory with a file for each, or a JSON file;
    secrets: those of the environment, by name. http_rules: whom http tasks may call;
    http_authorities: certificates they trust besides the system's.
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
    secrets_path: Path | None
    secrets: Mapping[str, Secret]
    http_rules: HostRules
    http_authorities: Path | None

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> Settings:
        """Return the settings. Raises SettingsError, TokenRefused.

        STRETTO_KERNEL_ADDRESS, STRETTO_TOKEN or STRETTO_TOKEN_FILE, STRETTO_DATA_DIR,
        STRETTO_WORKER_NAME, STRETTO_WORKER_QUEUES (a,b), STRETTO_WORKER_LABELS (k=v,k=v),
        STRETTO_WORKER_SLOTS, STRETTO_DRAIN_S, STRETTO_STOP_GRACE_S, STRETTO_TOKENS_FILE,
        STRETTO_LOG_LEVEL, STRETTO_WORKER_SECRETS, STRETTO_SECRET_*, STRETTO_HTTP_ALLOW,
        STRETTO_HTTP_DENY, STRETTO_HTTP_CA_FILE.
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
            secrets_path=_path(environ, "STRETTO_WORKER_SECRETS"),
            secrets={
                name.removeprefix(SECRET_PREFIX): Secret(text)
                for name, text in environ.items()
                if name.startswith(SECRET_PREFIX)
            },
            http_rules=_host_rules(environ),
            http_authorities=_authorities(environ),
        )


VARIABLES: Final = (
    Variable("STRETTO_KERNEL_ADDRESS", "kernel_address", "The kernel: `HOST:PORT`."),
    Variable("STRETTO_TOKEN", "token", "The token to present."),
    Variable("STRETTO_TOKEN_FILE", "token", "The file that holds it."),
    Variable(
        "STRETTO_DATA_DIR",
        "data_directory",
        "Where its id lies when it has no name.",
        "as of the command",
    ),
    Variable(
        "STRETTO_WORKER_NAME",
        "worker_name",
        "Its id.",
        "the next free one of the data directory",
    ),
    Variable("STRETTO_WORKER_QUEUES", "queues", "Which queues it serves: `a,b`."),
    Variable("STRETTO_WORKER_LABELS", "labels", "What tasks may ask for: `key=value,key=value`."),
    Variable("STRETTO_WORKER_SLOTS", "slot_count", "How many tasks at once."),
    Variable("STRETTO_DRAIN_S", "drain_finish_s", "How long bodies may finish at its end."),
    Variable("STRETTO_STOP_GRACE_S", "stop_grace_s", "How long they may take to stop after that."),
    Variable("STRETTO_TOKENS_FILE", "tokens_directory", "`tokens.json`: who may steer it."),
    Variable("STRETTO_LOG_LEVEL", "log_level", "How much it logs."),
    Variable(
        "STRETTO_WORKER_SECRETS",
        "secrets_path",
        'Where secrets are: a directory with a file for each, or a JSON file `{"NAME": "text"}`.',
    ),
    Variable(
        "STRETTO_SECRET_...",
        "secrets",
        "A secret by its name: `STRETTO_SECRET_API_TOKEN` is `API_TOKEN`.",
    ),
    Variable(
        "STRETTO_HTTP_ALLOW",
        "http_rules",
        "The hosts `http` tasks may call: `api.example.com,*.example.org,10.1.0.0/16`.",
        "all",
    ),
    Variable(
        "STRETTO_HTTP_DENY",
        "http_rules",
        "The hosts they may not, whatever allows them; `none` for nobody.",
        "`link-local`",
    ),
    Variable(
        "STRETTO_HTTP_CA_FILE",
        "http_authorities",
        "Certificates (PEM) they trust besides the system's.",
    ),
)
"""What the environment may say, for docs/settings.md."""


def _token(environ: Mapping[str, str]) -> Secret | None:
    if environ.get("STRETTO_TOKEN"):
        return Secret(environ["STRETTO_TOKEN"])
    path = environ.get("STRETTO_TOKEN_FILE")
    return read_token_file(Path(path)) if path else None


def _path(environ: Mapping[str, str], name: str) -> Path | None:
    text = environ.get(name)
    if not text:
        return None
    path = Path(text)
    if not path.exists():
        raise SettingsError(f"{name}: there is no {text}")
    return path


def _authorities(environ: Mapping[str, str]) -> Path | None:
    path = _path(environ, "STRETTO_HTTP_CA_FILE")
    try:
        if path is not None:
            ssl.create_default_context(cafile=path)
    except OSError as error:
        raise SettingsError(f"STRETTO_HTTP_CA_FILE: {path}: {error.strerror}") from None
    return path


def _host_rules(environ: Mapping[str, str]) -> HostRules:
    allow = _words(environ.get("STRETTO_HTTP_ALLOW", ""))
    deny = _words(environ.get("STRETTO_HTTP_DENY") or "link-local")
    try:
        return HostRules(allow, () if deny == ("none",) else deny)
    except ValueError as error:
        raise SettingsError(f"STRETTO_HTTP_ALLOW, STRETTO_HTTP_DENY: {error}") from None


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
