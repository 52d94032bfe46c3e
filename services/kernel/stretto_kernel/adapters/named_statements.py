"""SQL files of named statements: `-- name: NAME` begins one, what follows is described there."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources

from psycopg.sql import SQL, Composable, Composed


def named_statements(file: str, parts: Mapping[str, Composable]) -> dict[str, Composed]:
    """Return the statements of sql/`file` by name, with {parts} filled in."""
    text = resources.files("stretto_kernel.adapters").joinpath(f"sql/{file}").read_text()
    named = {}
    for part in text.split("-- name: ")[1:]:
        name, _, statement = part.partition("\n")
        named[name.strip()] = SQL(statement).format(**parts)
    return named
