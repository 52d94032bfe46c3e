"""The command that says what is in effect: config."""

from __future__ import annotations

import typer

from stretto_cli import printing
from stretto_cli.command_form import add_commands
from stretto_cli.connection import Suite
from stretto_cli.options import AsJson

_SHOWN = ("address", "token", "data_dir", "namespace", "config")


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    add_commands(app, config)


def config(suite: Suite, as_json: AsJson = False) -> None:
    """Show which suite the command talks to, as whom, and who said so.

    Each value comes from a flag, else the environment (STRETTO_ADDRESS, STRETTO_TOKEN,
    STRETTO_TOKEN_FILE, STRETTO_DATA_DIR, STRETTO_NAMESPACE, STRETTO_CONTEXT), else the config
    file, else the suite that runs on this machine. The config file is TOML; --config names
    another, --context another table of it:

        [default]
        address = "127.0.0.1:7788"
        token_file = "~/.config/stretto/me.token"

    Its keys are address, token_file, data_dir and namespace. A token file has mode 0600.

    --json: {"address": {"value": "...", "origin": "..."}, "token": ..., "data_dir": ...,
    "namespace": ..., "config": ..., "context": "..."}; no token is ever shown.
    """
    settings = suite.settings
    shown = {name: getattr(settings, name) for name in _SHOWN}
    if as_json:
        printing.print_json({**shown, "context": settings.context})
        return
    printing.print_table(
        ("SETTING", "VALUE", "FROM"),
        [
            (name, printing.escape(each.value) or "[dim]none[/]", printing.escape(each.origin))
            for name, each in shown.items()
        ],
    )
