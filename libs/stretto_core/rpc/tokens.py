"""Bearer tokens: the files that hold them, and who a presented token stands for.

`tokens.json` holds names, kinds and SHA-256 digests: all a server needs. The token itself is only
in `NAME.token`, for its holder. Both have mode 0600 and are replaced atomically. A token is 256
random bits, so its plain digest cannot be searched; it is compared in constant time.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from stretto.common.v1.principal_pb2 import (
    PRINCIPAL_KIND_ENV,
    PRINCIPAL_KIND_OPERATOR,
    PRINCIPAL_KIND_USER,
    PRINCIPAL_KIND_VERIFIER,
    PRINCIPAL_KIND_WORKER,
    Principal,
    PrincipalKind,
)

from stretto_core.atomic_file import write_atomically
from stretto_core.telemetry.secret import Secret

TOKENS_FILE = "tokens.json"
TOKEN_PREFIX = "stretto_"  # noqa: S105 - a mark that secret scanners know, not a secret
NAME_PATTERN = re.compile(r"[a-z][a-z0-9-]{0,62}")
SERVICE_KINDS: dict[str, PrincipalKind.ValueType] = {
    "operator": PRINCIPAL_KIND_OPERATOR,
    "worker": PRINCIPAL_KIND_WORKER,
    "verifier": PRINCIPAL_KIND_VERIFIER,
    "env": PRINCIPAL_KIND_ENV,
}
"""The tokens every installation has, by name."""

Mint = Callable[[], str]


class TokenRefused(Exception):
    """A token's name is taken, reserved or not well-formed, or a token file cannot be read."""


@dataclass(frozen=True, slots=True)
class TokenEntry:
    """What a server keeps of one token; digest: SHA-256 of the token's text, 32 bytes."""

    principal: Principal
    digest: bytes


class TokenTable:
    """The tokens of an installation as one server sees them; never changes."""

    def __init__(self, entries: tuple[TokenEntry, ...] = ()) -> None:
        self.entries = entries
        self._by_digest = {entry.digest: entry for entry in entries}

    def principal_of(self, token: str) -> Principal | None:
        """Return whom a presented token stands for, or None for an unknown one."""
        digest = hashlib.sha256(token.encode()).digest()
        # The lookup is by digest: how long it takes tells nothing that helps to guess a token.
        entry = self._by_digest.get(digest)
        if entry is None or not hmac.compare_digest(entry.digest, digest):
            return None
        return entry.principal

    def entry(self, name: str) -> TokenEntry | None:
        """Return the entry of a name."""
        return next((entry for entry in self.entries if entry.principal.name == name), None)


class TokenFile:
    """A token table that follows its file: one added counts at once, one removed a second later.

    mono_s: monotonic seconds (a loop's `time`); for known tokens the file is looked at once a
    second at most, before one is refused always.
    """

    def __init__(self, directory: Path, mono_s: Callable[[], float]) -> None:
        self._path = directory / TOKENS_FILE
        self._mono_s = mono_s
        self._stamp = _stamp(self._path)
        self._table = read_table(directory)
        self._looked_s = mono_s()

    def principal_of(self, token: str) -> Principal | None:
        """Return whom a presented token stands for now, or None for an unknown one."""
        if self._mono_s() - self._looked_s >= 1.0:
            self._look()
        principal = self._table.principal_of(token)
        if principal is None and self._look():
            principal = self._table.principal_of(token)
        return principal

    def _look(self) -> bool:
        """Read the table anew if its file has changed; return whether it did."""
        self._looked_s = self._mono_s()
        stamp = _stamp(self._path)
        if stamp == self._stamp:
            return False
        # A file that cannot be read revokes nothing: the last good table stands.
        with contextlib.suppress(TokenRefused):
            self._table = read_table(self._path.parent)
            self._stamp = stamp
        return True


def mint_token() -> str:
    """Return a new token's text: 256 random bits."""
    return TOKEN_PREFIX + secrets.token_urlsafe(32)


def ensure_tokens(directory: Path, mint: Mint = mint_token) -> TokenTable:
    """Make the tokens of SERVICE_KINDS that are missing; those that exist stay as they are.

    A crash on the way leaves a token file that no table names; the next call replaces it.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    table = read_table(directory) if (directory / TOKENS_FILE).exists() else TokenTable()
    entries = list(table.entries)
    for name, kind in SERVICE_KINDS.items():
        if table.entry(name) is None or not _token_path(directory, name).exists():
            entries = [entry for entry in entries if entry.principal.name != name]
            entries.append(_issue(directory, Principal(kind=kind, name=name), mint))
    if tuple(entries) != table.entries:
        _write_table(directory, entries)
    return TokenTable(tuple(entries))


def add_token(directory: Path, name: str, mint: Mint = mint_token) -> Secret:
    """Make a user's token and return it. Raises TokenRefused for a name that is taken or wrong."""
    table = read_table(directory)
    if not NAME_PATTERN.fullmatch(name) or name in SERVICE_KINDS or name in _RESERVED:
        raise TokenRefused(f"{name!r} is no name for a user: a-z, 0-9, -, at most 63, not reserved")
    if table.entry(name) is not None:
        raise TokenRefused(f"a token named {name!r} exists: revoke it first")
    entry = _issue(directory, Principal(kind=PRINCIPAL_KIND_USER, name=name), mint)
    _write_table(directory, [*table.entries, entry])
    return read_token(directory, name)


def list_tokens(directory: Path) -> list[Principal]:
    """Return who has a token here. Raises TokenRefused."""
    return [entry.principal for entry in read_table(directory).entries]


def remove_token(directory: Path, name: str) -> None:
    """Make a user's token worthless from the next second on. Raises TokenRefused.

    New calls are refused then; a stream that is open ends within 4 s.
    """
    table = read_table(directory)
    if table.entry(name) is None or name in SERVICE_KINDS:
        raise TokenRefused(f"no user's token is named {name!r}")
    _write_table(directory, [entry for entry in table.entries if entry.principal.name != name])
    _token_path(directory, name).unlink(missing_ok=True)


def read_token(directory: Path, name: str) -> Secret:
    """Return the token a holder presents. Raises TokenRefused when there is none to read."""
    return read_token_file(_token_path(directory, name))


def read_token_file(path: Path) -> Secret:
    """Return the token in a holder's own file. Raises TokenRefused when it holds none."""
    try:
        text = path.read_bytes().decode(errors="replace").strip()
    except OSError as error:
        raise TokenRefused(f"{path}: {error.strerror}") from error
    if not can_be_token(text):
        raise TokenRefused(f"{path} holds no token: that is one word on a line of its own")
    return Secret(text)


def can_be_token(text: str) -> bool:
    """Tell whether a text can be presented as a token: one word that a header can carry."""
    return text.isascii() and text.isprintable() and text.split() == [text]


def read_table(directory: Path) -> TokenTable:
    """Return the table of a directory. Raises TokenRefused when it is missing or not ours."""
    path = directory / TOKENS_FILE
    try:
        parsed = json.loads(path.read_bytes())
        return TokenTable(tuple(_parse(row) for row in parsed["tokens"]))
    except OSError as error:
        raise TokenRefused(f"{path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise TokenRefused(f"{path} is not a token file ({error!r})") from error


_RESERVED = frozenset({"anonymous", "kernel", "tokens"})


def _issue(directory: Path, principal: Principal, mint: Mint) -> TokenEntry:
    token = mint()
    # The holder's file first: a crash before the table is written leaves a token nobody accepts.
    write_atomically(_token_path(directory, principal.name), f"{token}\n".encode())
    return TokenEntry(principal, hashlib.sha256(token.encode()).digest())


def _write_table(directory: Path, entries: list[TokenEntry]) -> None:
    rows = [
        {
            "name": entry.principal.name,
            "kind": PrincipalKind.Name(entry.principal.kind),
            "sha256": entry.digest.hex(),
        }
        for entry in entries
    ]
    content = json.dumps({"version": 1, "tokens": rows}, indent=1)
    write_atomically(directory / TOKENS_FILE, content.encode())


def _parse(row: dict[str, str]) -> TokenEntry:
    principal = Principal(kind=PrincipalKind.Value(row["kind"]), name=row["name"])
    return TokenEntry(principal, bytes.fromhex(row["sha256"]))


def _token_path(directory: Path, name: str) -> Path:
    return directory / f"{name}.token"


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_mtime_ns, found.st_ino
