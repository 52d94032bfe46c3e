"""What every command has in common: how it ends, and the options that say which suite it is about.

A command declares `suite: Suite` (it asks one, wherever it is) or `suite: LocalSuite` (its
processes are on this machine), or neither. The options behind that are added here, in a help panel
of their own, and the command is given what they mean.
"""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from stretto_cli.connection import LocalSuite, Suite
from stretto_cli.exits import reported
from stretto_cli.help_text import help_markup
from stretto_cli.settings import Flags, effective_settings

_PANEL = "Which suite (default: the one on this machine; `stretto config` shows it)"

_Address = Annotated[
    str | None,
    typer.Option(
        "--address", metavar="HOST:PORT", help="A suite elsewhere.", rich_help_panel=_PANEL
    ),
]
_TokenFile = Annotated[
    Path | None,
    typer.Option(
        "--token-file",
        metavar="FILE",
        help="Who to be there: a file with a token, mode 0600.",
        rich_help_panel=_PANEL,
    ),
]
_DataDirectory = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        metavar="DIR",
        help="The suite that keeps its data there.",
        rich_help_panel=_PANEL,
    ),
]
_Namespace = Annotated[
    str | None,
    typer.Option("--namespace", metavar="NAME", help="Whose runs.", rich_help_panel=_PANEL),
]
_Config = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", help="Another config file.", rich_help_panel=_PANEL),
]
_Context = Annotated[
    str | None,
    typer.Option(
        "--context", metavar="NAME", help="Which table of the config file.", rich_help_panel=_PANEL
    ),
]
_LOCAL_OPTIONS: dict[str, object] = {
    "data_dir": _DataDirectory,
    "config": _Config,
    "context": _Context,
}
_OPTIONS: dict[str, object] = {
    "address": _Address,
    "token_file": _TokenFile,
    "namespace": _Namespace,
    **_LOCAL_OPTIONS,
}


_STARTERS: set[str] = set()


def add_commands(app: typer.Typer, *functions: Callable[..., None]) -> None:
    """Add functions as commands, named after them; see `command`."""
    for function in functions:
        add_command(app, function)


def add_command(app: typer.Typer, function: Callable[..., None], name: str | None = None) -> None:
    """Add a function as a command; its docstring is the help."""
    app.command(name, help=help_markup(function.__doc__))(command(function))


def starts_a_suite(function: Callable[..., None]) -> Callable[..., None]:
    """Mark a command that must not take the directory of another suite for its own."""
    _STARTERS.add(function.__qualname__)
    return function


def command(function: Callable[..., None]) -> Callable[..., None]:
    """Return a function as a command: what goes wrong in it is a sentence and an exit status."""
    hints = get_type_hints(function, include_extras=True)
    if hints.get("suite") is Suite:
        return reported(_with_options(function, hints, Suite, _OPTIONS))
    if hints.get("suite") is LocalSuite:
        return reported(_with_options(function, hints, LocalSuite, _LOCAL_OPTIONS))
    return reported(function)


def _with_options(
    function: Callable[..., None],
    hints: dict[str, Any],
    kind: type[Suite] | type[LocalSuite],
    options: dict[str, object],
) -> Callable[..., None]:
    discover = function.__qualname__ not in _STARTERS

    @functools.wraps(function)
    def run(**given: Any) -> None:
        flags = Flags(**{name: given.pop(name) for name in options})
        settings = effective_settings(flags, os.environ, discover=discover)
        function(suite=kind(settings), **given)

    own = [
        each.replace(annotation=hints[each.name])
        for each in inspect.signature(function).parameters.values()
        if each.name != "suite"
    ]
    added = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=option)
        for name, option in options.items()
    ]
    run.__signature__ = inspect.Signature([*own, *added])  # type: ignore[attr-defined]
    run.__annotations__ = {each.name: each.annotation for each in (*own, *added)}
    del run.__wrapped__  # Its signature is not the one to look at.
    return run
