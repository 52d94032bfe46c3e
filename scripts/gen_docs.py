"""Writes docs/command.md, from the command, and the tables of docs/settings.md, from the services.

python scripts/gen_docs.py DIRECTORY
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any

import stretto_kernel.settings as kernel
import stretto_worker.settings as worker
import typer
from stretto_cli.app import MODULES, Commands, app, stretto
from stretto_cli.exits import ExitStatus
from stretto_core.variables import Variable

COMMAND_PAGE = "command.md"
SETTINGS_PAGE = "settings.md"
REQUIRED = {"STRETTO_POSTGRES_DSN": "postgresql://x"}
_STATUS = {
    ExitStatus.SUCCESS: "It did what was asked; a run that was waited for has succeeded.",
    ExitStatus.FAILED: "The run did not succeed, the chain is broken, or the suite is not well.",
    ExitStatus.USAGE: "The request is wrong or was refused: a flag, a file, an unknown run.",
    ExitStatus.UNREACHABLE: "No suite answers, or a run has not ended in the time given.",
    ExitStatus.BUG: "A bug of ours; STRETTO_DEBUG=1 shows where.",
    ExitStatus.INTERRUPTED: "Ctrl-C.",
}


def command_page() -> str:
    """Return the reference of the command, from its own help."""
    group = typer.main.get_group(app)
    assert isinstance(group, Commands)
    parts = [
        "# The command\n",
        "Generated from `stretto --help` by `make docs`; the same is shown by `stretto COMMAND "
        "--help`.\n",
        _prose(stretto.__doc__),
        "## Exit status\n",
        "| status | meaning |\n| --- | --- |",
        *(f"| {int(status)} | {meaning} |" for status, meaning in _STATUS.items()),
        "",
    ]
    panel = ""
    for module in MODULES:
        if module.panel != panel:
            panel = module.panel
            parts.append(f"## {panel}\n")
        for name in module.commands:
            parts.extend(_command(f"stretto {name}", group.loaded(name)))
    parts.append("## Which suite\n")
    parts.append(
        "Every command that asks a suite takes these; `stretto config` shows what is in effect.\n"
    )
    parts.extend(_options(_suite_options(group.loaded("runs"))))
    return "\n".join(parts).rstrip() + "\n"


def _command(path: str, command: Any) -> Iterator[str]:
    inner = getattr(command, "commands", {})
    words = ["COMMAND"] if inner else [*map(_argument, _arguments(command))]
    yield f"### {path}\n"
    yield f"`{' '.join([path, *words])}`\n"
    yield _prose(command.callback.__doc__ if command.callback else command.help)
    yield from _options(
        [each for each in _own_options(command) if each not in _suite_options(command)]
    )
    for name, each in inner.items():
        yield from _command(f"{path} {name}", each)


def _argument(argument: Any) -> str:
    shown = argument.metavar or argument.name.upper()
    return shown if argument.required else f"[{shown}]"


def _arguments(command: Any) -> list[Any]:
    return [each for each in command.params if each.param_type_name == "argument"]


def _own_options(command: Any) -> list[Any]:
    return [each for each in command.params if each.param_type_name == "option"]


def _suite_options(command: Any) -> list[Any]:
    return [
        each
        for each in _own_options(command)
        if (getattr(each, "rich_help_panel", None) or "").startswith("Which suite")
    ]


def _options(options: Sequence[Any]) -> Iterator[str]:
    if not options:
        return
    yield "| option | meaning |\n| --- | --- |"
    for option in options:
        flags = ", ".join([*option.opts, *option.secondary_opts])
        metavar = "" if option.is_flag else f" {option.metavar or 'VALUE'}"
        shown = option.default not in (None, "", False, True) and option.show_default is not False
        default = f" Default: {option.default}." if shown else ""
        meaning = (option.help or "").replace("|", "\\|")
        yield f"| `{flags}{metavar}` | {meaning}{default} |".replace("|@FILE|-`", "\\|@FILE\\|-`")
    yield ""


def _prose(docstring: str | None) -> str:
    """Return a docstring as Markdown: what is indented is a block of code, of text."""
    blocks = inspect.cleandoc(docstring or "").split("\n\n")
    shown = []
    for block in blocks:
        if block.startswith("    "):
            shown.append("```text\n" + inspect.cleandoc("\n" + block) + "\n```")
        else:
            shown.append(" ".join(block.split()))
    return "\n\n".join(shown) + "\n"


def settings_tables() -> dict[str, str]:
    """Return the tables of what services read from the environment, by service."""
    return {
        "kernel": _table(kernel.VARIABLES, kernel.Settings.from_env(REQUIRED)),
        "worker": _table(worker.VARIABLES, worker.Settings.from_env({})),
    }


def _table(variables: Sequence[Variable], defaults: object) -> str:
    rows = ["| variable | meaning | default |", "| --- | --- | --- |"]
    for each in variables:
        default = each.default or _text(attrgetter(each.field)(defaults))
        rows.append(f"| `{each.name}` | {each.meaning} | {default} |")
    return "\n".join(rows)


def _text(value: object) -> str:
    if value in (None, "", (), {}):
        return "-"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def with_tables(page: str) -> str:
    """Return a page with each generated table in it made anew."""
    for name, table in settings_tables().items():
        pattern = re.compile(rf"(<!-- generated: {name} -->\n).*?(\n<!-- end -->)", re.DOTALL)
        page = pattern.sub(lambda found, table=table: found[1] + table + found[2], page)  # type: ignore[misc]
    return page


def main() -> None:
    """Write the pages."""
    docs = Path(sys.argv[1])
    (docs / COMMAND_PAGE).write_text(command_page())
    settings = docs / SETTINGS_PAGE
    settings.write_text(with_tables(settings.read_text()))


if __name__ == "__main__":
    main()
