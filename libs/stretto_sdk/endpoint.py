"""Where the suite is and who we are to it: arguments, the environment, else the data directory.

`stretto up` writes into its data directory `endpoint.json` (the address) and `tokens/` (one file
per holder, mode 0600). This module reads both; it writes neither. It reads the environment because
a client has no main of ours that could.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from stretto_core.errors import InvalidArgument, Unavailable
from stretto_core.localstack.data_directory import default_data_directory
from stretto_core.rpc.tokens import TokenRefused, can_be_token, read_token
from stretto_core.telemetry.secret import Secret

ENDPOINT_FILE = "endpoint.json"
TOKENS_DIRECTORY = "tokens"
OPERATOR = "operator"


class NoEndpoint(Unavailable):
    """Nobody said where the suite is, and no running suite wrote it down."""

    reason = "NO_ENDPOINT"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An address (host:port) and the bearer token to present there, None for anonymous."""

    address: str
    token: Secret | None


def find_endpoint(
    address: str | None = None,
    token: str | None = None,
    *,
    data_directory: Path | None = None,
    environ: Mapping[str, str] | None = None,
) -> Endpoint:
    """Return the endpoint to use.

    Each part by itself: as given, else STRETTO_ADDRESS / STRETTO_TOKEN, else what the data
    directory holds. A token from the data directory is only used with the address from there.
    Raises NoEndpoint, InvalidArgument (no address, or no token).
    """
    environ = os.environ if environ is None else environ
    address = address or environ.get("STRETTO_ADDRESS")
    told = token or environ.get("STRETTO_TOKEN")
    if told and not can_be_token(told):
        raise InvalidArgument("that is no token (an argument, or STRETTO_TOKEN): it is one word")
    secret = Secret(told) if told else None
    if address:
        return Endpoint(_checked(address), secret)
    directory = data_directory or default_data_directory(environ)
    try:
        written = json.loads((directory / ENDPOINT_FILE).read_bytes())
    except FileNotFoundError:
        raise NoEndpoint(
            f"no suite has been started in {directory}: run `stretto up`, "
            "or say where it is with STRETTO_ADDRESS",
            data_directory=str(directory),
        ) from None
    return Endpoint(written["address"], secret or _operator_token(directory))


def _checked(address: str) -> str:
    host, _, port = address.rpartition(":")
    # gRPC would take a larger port modulo 65,536, and a name without one as port 443.
    if not host or not port.isdecimal() or not 0 < int(port) <= 65_535:
        raise InvalidArgument(f"{address!r} is no address: HOST:PORT, like 127.0.0.1:7788")
    return address


def _operator_token(directory: Path) -> Secret | None:
    try:
        return read_token(directory / TOKENS_DIRECTORY, OPERATOR)
    except TokenRefused:
        return None  # Not ours to read: anonymous, and the kernel says what that allows.
