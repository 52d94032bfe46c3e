"""The `stretto` command as a whole: its help, its version, its commands in order."""

from __future__ import annotations

from importlib.metadata import version
from typing import Annotated

import typer

from stretto_cli import (
    import_commands,
    log_commands,
    printing,
    run_commands,
    suite_commands,
    token_commands,
)

app = typer.Typer(
    name="stretto",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit status: 0 success · 1 the run did not succeed, or the chain is broken · 2 wrong "
    "usage or a refused request · 3 no suite answers (in time) · 4 a bug of ours.",
)


def _print_version(asked: bool) -> None:
    if asked:
        printing.print_line(version("stretto"))
        raise typer.Exit


@app.callback()
def stretto(
    _version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Run jobs that survive whatever is killed on the way.

    Start a suite with [bold]stretto up --detach[/], give it a plan with [bold]stretto run
    plan.json[/], look at it with [bold]get[/], [bold]tasks[/] and [bold]events[/], check the record
    with [bold]verify[/], end it with [bold]stretto down[/].
    """


suite_commands.register(app)
token_commands.register(app)
run_commands.register(app)
log_commands.register(app)
import_commands.register(app)
