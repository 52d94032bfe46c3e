"""The frame of the command: what it lists is what it has, and help costs no client to show."""

from __future__ import annotations

import subprocess
import sys

import pytest
import typer
from stretto_cli.app import MODULES, Commands, app
from stretto_cli.exits import ExitStatus, reported
from typer.testing import CliRunner

GROUP = typer.main.get_group(app)
LISTED = [(name, line) for each in MODULES for name, line in each.commands.items()]


@pytest.mark.parametrize(("name", "line"), LISTED)
def test_the_line_in_the_list_is_the_first_line_of_the_help(name: str, line: str) -> None:
    assert isinstance(GROUP, Commands)
    loaded = GROUP.loaded(name)
    assert loaded.name == name
    assert (loaded.help or "").split("\n\n")[0] == line


def test_help_imports_nothing_that_talks() -> None:
    told = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys\n"
            "from stretto_cli.app import app\n"
            "try:\n"
            "    app(['--help'])\n"
            "except SystemExit:\n"
            "    pass\n"
            "print('\\n'.join(sorted(sys.modules)), file=sys.stderr)\n",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = set(told.stderr.splitlines())
    heavy = {"grpc", "google.protobuf", "asyncio", "ssl", "structlog", "importlib.metadata"}
    assert not heavy & loaded
    ours = {name for name in loaded if name.startswith("stretto_")}
    assert ours == {
        "stretto_cli",
        "stretto_cli.app",
        "stretto_cli.command_group",
        "stretto_cli.help_text",
    }


@pytest.mark.parametrize(
    ("arguments", "near"),
    [
        (["cancle"], "cancel"),
        (["rnus"], "runs"),
        (["runs", "--sate", "FAILED"], "--state"),
        (["runs", "--state", "FALED"], "FAILED"),
        (["token", "ad"], "add"),
    ],
)
def test_a_typo_is_answered_with_the_nearest_known_word(arguments: list[str], near: str) -> None:
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == ExitStatus.USAGE
    assert near in result.output


def test_an_option_before_the_command_is_told_where_it_belongs() -> None:
    result = CliRunner().invoke(app, ["--address", "127.0.0.1:7788", "runs"])
    assert result.exit_code == ExitStatus.USAGE
    assert "stand after the command" in " ".join(result.output.split())


def test_a_question_that_gets_no_answer_ends_like_ctrl_c() -> None:
    @reported
    def asks() -> None:
        raise typer.Abort

    with pytest.raises(typer.Exit) as ended:
        asks()
    assert ended.value.exit_code == ExitStatus.INTERRUPTED
