"""The `stretto` command as a whole: its help, its version, its commands in order.

A command is listed here with the first line of its help, and written in the module of its noun,
whose `register(app)` adds it; a test compares the two. Nothing else of ours is imported for
`stretto --help`.
"""

from __future__ import annotations

from typing import Annotated

import typer

from stretto_cli.command_group import CommandGroup, CommandModule
from stretto_cli.help_text import help_markup

MODULES = (
    CommandModule(
        "Suite",
        "suite_commands",
        {
            "up": "Start a suite on this machine: PostgreSQL, NATS, kernel, projector and workers.",
            "down": "Stop the suite of this machine; its record stays.",
            "status": "Show whether a suite is well: its processes, its workers, its work.",
        },
    ),
    CommandModule(
        "Suite",
        "backup_commands",
        {"backup": "Copy the record of the suite on this machine while it runs."},
    ),
    CommandModule(
        "Runs",
        "run_commands",
        {
            "run": "Start the run that a plan FILE describes, wait for its end, print its output.",
            "retry": "Re-open a run that ended without success; finished tasks stay finished.",
            "get": "Show one run: where it stands, how far its tasks are, its output or failure.",
        },
    ),
    CommandModule(
        "Runs",
        "watch_commands",
        {"watch": "Follow a run to its end: its tasks, their attempts, and what each waits for."},
    ),
    CommandModule(
        "Runs",
        "list_commands",
        {
            "runs": "List runs, newest first.",
            "tasks": "List the tasks of a run in the order they came to be.",
        },
    ),
    CommandModule(
        "Runs",
        "history_commands",
        {
            "history": "Print who did what to a run, when and why, oldest first.",
            "replay": "Step through a run: each fact, who made it true, and what it changed. "
            "Executes nothing.",
            "diff": "Show what changed in a run between two moments, and which facts changed it.",
        },
    ),
    CommandModule(
        "Runs",
        "task_log_commands",
        {"logs": "Print what tasks wrote: standard output, standard error, and what they logged."},
    ),
    CommandModule(
        "Runs",
        "blob_commands",
        {
            "artifacts": "List the files that the tasks of a run left behind.",
            "cat": "Write an artifact, or any blob by its digest, as it is.",
        },
    ),
    CommandModule(
        "Runs",
        "usage_commands",
        {
            "usage": "Show how many attempts runs had and how long they held workers, by queue and "
            "by worker.",
        },
    ),
    CommandModule(
        "Runs",
        "board_commands",
        {"board": "Read and write the blackboard of a run."},
    ),
    CommandModule(
        "Steering",
        "steer_commands",
        {
            "cancel": "Ask runs to stop: attempts get the signal, then clean-up tasks run.",
            "kill": "End runs at once: no clean-up, and what workers still report is refused.",
            "pause": "Put a hold on runs: nothing new is leased until `resume`; what runs goes on.",
            "resume": "Lift a hold that `pause` placed.",
        },
    ),
    CommandModule(
        "Workers",
        "worker_commands",
        {
            "workers": "List workers: those connected, and those lost or gone in the last hour.",
            "worker": "Start a worker here, or ask one to end.",
        },
    ),
    CommandModule(
        "Queues",
        "queue_commands",
        {
            "queues": "List queues: what waits and runs in each, its limits, and what became of "
            "its tasks.",
            "queue": "Set how much of a queue goes to workers.",
        },
    ),
    CommandModule(
        "Namespaces",
        "namespace_commands",
        {
            "namespace": "Say what holds for the runs that are started in a namespace.",
            "shred": "Forget for good what an ended run carried: its data key is destroyed.",
        },
    ),
    CommandModule(
        "Event log",
        "log_commands",
        {
            "events": "Print the recorded facts, oldest first: what is not here did not happen.",
            "verify": "Compute the hash chain again from what is stored, of one run or of all.",
        },
    ),
    CommandModule(
        "Event log",
        "audit_commands",
        {
            "export": "Write the record to a file that proves itself: `stretto-verify` checks it "
            "anywhere.",
            "proof": "Write the proof that one event lies in the log under a seal.",
        },
    ),
    CommandModule(
        "Event log",
        "view_commands",
        {
            "views": "List the views of the log: how far each has followed it, and why one stands "
            "still.",
            "rebuild": "Make views again from the first event, while everything goes on, and put "
            "them in place.",
        },
    ),
    CommandModule(
        "Event log",
        "relay_commands",
        {
            "relay": "Show how far the log is relayed to the bus, or relay it again from a "
            "position.",
        },
    ),
    CommandModule(
        "Plans",
        "plan_commands",
        {
            "validate": "Say whether a plan FILE is a plan, or everything that is wrong in it.",
            "render": "Draw a plan or a run as a Mermaid or Graphviz graph.",
            "plan-schema": "Print the JSON Schema of plan files, for editors.",
        },
    ),
    CommandModule(
        "Plans",
        "import_commands",
        {"import": "Turn a workflow of another system into a plan file whose tasks sleep."},
    ),
    CommandModule(
        "Access",
        "config_commands",
        {"config": "Show which suite the command talks to, as whom, and who said so."},
    ),
    CommandModule(
        "Access",
        "token_commands",
        {"token": "Give users tokens of their own, list them, take them back."},
    ),
)


class Commands(CommandGroup):
    """All commands of `stretto`."""

    modules = MODULES


app = typer.Typer(
    name="stretto",
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit status: 0 success · 1 the run did not succeed, or the chain is broken · 2 wrong "
    "usage or a refused request · 3 no suite answers (in time) · 4 a bug of ours · 130 after "
    "Ctrl-C.",
)


def _print_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version  # noqa: PLC0415 - a third of the start-up

        typer.echo(version("stretto"))
        raise typer.Exit


def stretto(
    _version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Run jobs that survive whatever is killed on the way.

    Start a suite, give it a plan, look at what it does, stop it; no address is needed here:

        stretto up --detach
        stretto run plan.json --input '{"who": "you"}'
        stretto runs --state FAILED --since 1d
        stretto watch last
        stretto logs last -f
        stretto events last -f
        stretto down

    Every command explains itself, with examples: stretto COMMAND --help.
    """


app.callback(help=help_markup(stretto.__doc__))(stretto)
