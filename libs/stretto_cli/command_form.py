"""What every command has in common: how it ends, and the options that say which suite it is about.

A command declares `suite: Suite` (it asks one, wherever it is) or `suite: LocalSuite` (its
processes are on this machine), or neither. The options behind that are added here, in a help panel
of their own, and the command is given what they mean. Options that several commands share as a
whole are an OptionGroup.
"""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True)
class OptionGroup:
    """Options that make one parameter of a command: `name: Annotated[Kind, OptionGroup(...)]`.

    options: by name, each an annotation of typer's; none is required. build: makes the parameter
    from what was given.
    """

    options: Mapping[str, tuple[object, object]]
    build: Callable[..., object]


_LOCAL_OPTIONS: dict[str, tuple[object, object]] = {
    "data_dir": (_DataDirectory, None),
    "config": (_Config, None),
    "context": (_Context, None),
}
_OPTIONS: dict[str, tuple[object, object]] = {
    "address": (_Address, None),
    "token_file": (_TokenFile, None),
    "namespace": (_Namespace, None),
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
    # A command that starts a suite must not take the directory of another for its own.
    discover = function.__qualname__ not in _STARTERS
    groups = {name: _group(hint, discover=discover) for name, hint in hints.items()}
    found = {name: group for name, group in groups.items() if group is not None}
    return reported(_with_options(function, hints, found) if found else function)


def _group(hint: object, *, discover: bool) -> OptionGroup | None:
    def suite_of(kind: type[Suite] | type[LocalSuite], **flags: Any) -> Suite | LocalSuite:
        return kind(effective_settings(Flags(**flags), os.environ, discover=discover))

    if hint is Suite:
        return OptionGroup(_OPTIONS, functools.partial(suite_of, Suite))
    if hint is LocalSuite:
        return OptionGroup(_LOCAL_OPTIONS, functools.partial(suite_of, LocalSuite))
    extras = getattr(hint, "__metadata__", ())
    return next((each for each in extras if isinstance(each, OptionGroup)), None)


def _with_options(
    function: Callable[..., None], hints: dict[str, Any], groups: dict[str, OptionGroup]
) -> Callable[..., None]:
    @functools.wraps(function)
    def run(**given: Any) -> None:
        for name, group in groups.items():
            built = group.build(**{each: given.pop(each) for each in group.options})
            given[name] = built
        function(**given)

    own = [
        each.replace(annotation=hints[each.name], kind=inspect.Parameter.KEYWORD_ONLY)
        for each in inspect.signature(function).parameters.values()
        if each.name not in groups
    ]
    # Which suite is the last thing to read about a command.
    later = sorted(groups.items(), key=lambda each: each[0] == "suite")
    added = [
        inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation
        )
        for _, group in later
        for name, (annotation, default) in group.options.items()
    ]
    run.__signature__ = inspect.Signature([*own, *added])  # type: ignore[attr-defined]
    run.__annotations__ = {each.name: each.annotation for each in (*own, *added)}
    del run.__wrapped__  # Its signature is not the one to look at.
    return run
