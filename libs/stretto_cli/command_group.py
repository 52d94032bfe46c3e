"""The group of all commands: shows what there is without importing it, loads what is called.

Owns how a command is found: `app` lists each with its module, its panel and one line of help. Help
and completion of names need no more than that list; the module is imported when its command runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

import typer

# Typer carries its own copy of click and gives its classes no public name.
from typer._click.exceptions import NoSuchOption
from typer.core import TyperCommand, TyperGroup

if TYPE_CHECKING:
    from typer._click import Command, Context


@dataclass(frozen=True, slots=True)
class CommandModule:
    """The commands of one noun. commands: each name with the first line of its help.

    module: below stretto_cli; its `register(app)` adds them all.
    """

    panel: str
    module: str
    commands: Mapping[str, str]


class CommandGroup(TyperGroup):
    """A group whose commands are imported when they are called."""

    modules: Sequence[CommandModule] = ()

    def __init__(self, **attrs: Any) -> None:
        super().__init__(**attrs)
        self._module_of: dict[str, str] = {}
        for each in self.modules:
            for name, line in each.commands.items():
                self.commands[name] = TyperCommand(name, help=line, rich_help_panel=each.panel)
                self._module_of[name] = each.module

    def parse_args(self, ctx: Context, args: list[str]) -> list[str]:
        """Parse what stands before the command's name. Raises UsageError, told where options go."""
        try:
            return super().parse_args(ctx, args)
        except NoSuchOption as refusal:
            if not refusal.possibilities:
                refusal.message += ". Options stand after the command: stretto runs --all"
            raise

    def resolve_command(
        self, ctx: Context, args: list[str]
    ) -> tuple[str | None, Command | None, list[str]]:
        """Return the command that is called, loaded. Raises UsageError with the nearest name."""
        name, command, rest = super().resolve_command(ctx, args)
        return name, self.loaded(name) if name else command, rest

    def loaded(self, name: str) -> Command:
        """Return a command itself, from its module. Raises KeyError for an unknown name."""
        register = import_module(f"stretto_cli.{self._module_of[name]}").register
        part = typer.Typer(rich_markup_mode=self.rich_markup_mode)
        register(part)
        command = typer.main.get_group(part).commands[name]
        _quiet_flags(command)
        return command


def _quiet_flags(command: Command) -> None:
    """Show a flag without the type of its value: it takes none."""
    for parameter in command.params:
        if getattr(parameter, "is_flag", False):
            parameter.metavar = ""
    for inner in getattr(command, "commands", {}).values():
        _quiet_flags(inner)
