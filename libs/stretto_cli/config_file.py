"""The config file of the command: TOML, a table a context, each naming a suite.

    [default]
    address = "127.0.0.1:7788"
    token_file = "~/.config/stretto/me.token"

    [lab]
    data_dir = "/srv/lab/stretto"
    namespace = "search"

Owns its form and its refusals. It never holds a token, only the name of the file that does.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from stretto_core.errors import InvalidArgument

KEYS = ("address", "token_file", "data_dir", "namespace")
_PATHS = ("token_file", "data_dir")
DEFAULT_CONTEXT = "default"
CONFIG_BYTES_MAX = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigContext:
    """One table of the file; "" = not said. Paths are absolute. origin: the table, for people."""

    name: str = DEFAULT_CONTEXT
    origin: str = ""
    address: str = ""
    token_file: str = ""
    data_dir: str = ""
    namespace: str = ""


def config_path(asked: Path | None, environ: Mapping[str, str]) -> tuple[Path, str]:
    """Return where the config file is, and who said so. One that was asked for must exist.

    Raises InvalidArgument.
    """
    for said, origin in ((asked, "--config"), (environ.get("STRETTO_CONFIG"), "$STRETTO_CONFIG")):
        if said:
            path = Path(said).absolute()
            if not path.is_file():
                raise InvalidArgument(f"{origin}: {path}: no such file")
            return path, origin
    home = environ.get("XDG_CONFIG_HOME")
    return (Path(home) if home else Path.home() / ".config") / "stretto" / "config.toml", "default"


def read_context(path: Path, asked: str | None) -> ConfigContext:
    """Return a context of the file: the one asked for, else [default], else one that says nothing.

    Raises InvalidArgument naming every mistake in the file, and for a context that is not there.
    """
    contexts = _read(path)
    name = asked or DEFAULT_CONTEXT
    if name in contexts:
        return contexts[name]
    if asked is None:
        return ConfigContext()
    known = ", ".join(contexts) or "none"
    raise InvalidArgument(
        f"{path} has no context [{asked}]{_nearest(asked, contexts)}; has: {known}"
    )


def _read(path: Path) -> dict[str, ConfigContext]:
    try:
        with path.open("rb") as opened:
            content = opened.read(CONFIG_BYTES_MAX + 1)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise InvalidArgument(f"{path}: {error.strerror}") from None
    if len(content) > CONFIG_BYTES_MAX:
        raise InvalidArgument(f"{path}: a config file has at most {CONFIG_BYTES_MAX} bytes")
    try:
        tables = tomllib.loads(content.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidArgument(f"{path} is not TOML: {error}") from None
    mistakes = [mistake for name, table in tables.items() for mistake in _mistakes(name, table)]
    if mistakes:
        raise InvalidArgument("\n  ".join([f"{path}:", *mistakes]))
    return {name: _context(path, name, table) for name, table in tables.items()}


def _mistakes(name: str, table: object) -> list[str]:
    if not isinstance(table, dict):
        where = f": put it below [{DEFAULT_CONTEXT}]" if name in KEYS else ""
        return [f"{name} stands outside of a context{where}"]
    found = []
    for key, value in table.items():
        if key not in KEYS:
            found.append(f"[{name}] {key}: no such key{_nearest(key, KEYS)}")
        elif not isinstance(value, str):
            found.append(f"[{name}] {key}: is a text, in quotes")
    return found


def _context(path: Path, name: str, table: Mapping[str, str]) -> ConfigContext:
    said = {
        # A path is relative to the file that says it: it means the same from everywhere.
        key: str(path.parent / Path(value).expanduser()) if key in _PATHS and value else value
        for key, value in table.items()
    }
    return ConfigContext(name=name, origin=f"{path} [{name}]", **said)


def _nearest(word: str, known: Mapping[str, object] | tuple[str, ...]) -> str:
    near = get_close_matches(word, list(known), n=1)
    return f", did you mean {near[0]}?" if near else ""
