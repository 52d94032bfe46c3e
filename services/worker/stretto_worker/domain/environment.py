"""The environment of a process task, with its secrets in it. Pure."""

from __future__ import annotations

from stretto_sdk.arguments.process import Command
from stretto_sdk.arguments.secret_references import FindSecret, Reveal, SecretUnavailable

from stretto_worker.domain.redaction import Redaction


def environment_of(command: Command, find: FindSecret) -> tuple[dict[str, str], Redaction]:
    """Return the command's environment with its secrets, and what keeps them out of its output.

    Raises SecretUnavailable.
    """
    reveal = Reveal(find)
    env = {name: reveal.text(value) for name, value in command.env.items()}
    if any("\0" in value for value in env.values()):
        raise SecretUnavailable("SECRET_UNUSABLE", "a secret of env holds a NUL character")
    return env, Redaction(reveal.revealed)
