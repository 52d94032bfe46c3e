"""The command without a suite: its help, its refusals, its exit statuses; never a stack trace."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
from stretto_cli import connection
from stretto_cli.app import app
from stretto_cli.connection import Suite
from stretto_cli.exits import ExitStatus
from stretto_cli.output_file import replacing, write_file
from stretto_cli.settings import Flags, effective_settings
from stretto_core.errors import InvalidArgument, Unavailable
from stretto_core.ids import RunId
from stretto_core.rpc.tokens import read_token
from typer.testing import CliRunner, Result

RUN_ID = RunId("p0-01a1fcde9e997ae76f7cb5dfdec3dc3f")
COMMANDS = (
    "up", "down", "status", "run", "get", "tasks", "runs", "config", "cancel", "kill", "pause",
    "resume", "events", "verify", "token",
)  # fmt: skip


@pytest.fixture
def data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STRETTO_DATA_DIR", str(tmp_path / "suite"))
    monkeypatch.delenv("STRETTO_ADDRESS", raising=False)
    return tmp_path / "suite"


def stretto(*arguments: str) -> Result:
    result = CliRunner().invoke(app, arguments)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert "Traceback" not in result.output
    return result


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str) -> None:
    result = stretto(command, "--help")
    assert result.exit_code == ExitStatus.SUCCESS
    assert "Usage" in result.output
    assert command in stretto("--help").output


@pytest.mark.parametrize(
    "arguments",
    [
        ("status",),
        ("get", "x"),
        ("events",),
        ("verify",),
        ("runs",),
        ("cancel", "x"),
        ("tasks", "x"),
    ],
)
@pytest.mark.usefixtures("data_dir")
def test_without_a_suite_the_status_is_unreachable(arguments: tuple[str, ...]) -> None:
    assert stretto(*arguments).exit_code == ExitStatus.UNREACHABLE


def test_a_suite_that_does_not_answer_is_told_without_the_words_of_the_transport() -> None:
    suite = Suite(effective_settings(Flags(address="127.0.0.1:1"), {}))
    with pytest.raises(Unavailable) as told:
        suite.ask(lambda client: client.get(RUN_ID), retry_budget=timedelta(0))
    assert told.value.message == "no suite answers at 127.0.0.1:1: Connection refused"


def test_a_person_hears_what_a_command_waits_for(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "PATIENCE_S", 0.0)
    suite = Suite(effective_settings(Flags(address="127.0.0.1:1"), {}))
    with pytest.raises(Unavailable):
        suite.ask(lambda client: client.get(RUN_ID), retry_budget=timedelta(milliseconds=200))
    assert "no suite answers at 127.0.0.1:1 yet" in capsys.readouterr().err


@pytest.mark.usefixtures("data_dir")
def test_down_without_a_suite_is_harmless() -> None:
    assert stretto("down").exit_code == ExitStatus.SUCCESS


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b'{"tasks": [{"name": "a", "exectuor": "process"}]}', 'did you mean "executor"?'),
        (b'{"tasks": 1, "tasks": 2}', "stands twice"),
        (b"\xff\xfe", "not UTF-8"),
        (b"[NaN]", "NaN"),
        (b"{" * 100_000, "plan.json"),
        (b" " * (65 << 20), "at most"),
    ],
)
@pytest.mark.usefixtures("data_dir")
def test_a_bad_plan_file_is_refused_with_what_is_wrong(
    content: bytes, says: str, tmp_path: Path
) -> None:
    plan = tmp_path / "plan.json"
    plan.write_bytes(content)
    result = stretto("run", str(plan))
    assert result.exit_code == ExitStatus.USAGE
    assert says in result.stderr
    assert result.stdout == ""


@pytest.mark.usefixtures("data_dir")
def test_bad_options_are_refused_by_name(tmp_path: Path) -> None:
    plan = tmp_path / "plan.json"
    plan.write_text(json.dumps({"tasks": [{"name": "a", "executor": "acme.do"}]}))
    for arguments, says in [
        (("run", str(tmp_path / "none.json")), "No such file"),
        (("run", str(tmp_path)), "directory"),
        (("run", str(plan), "--input", "{"), "--input"),
        (("run", str(plan), "--input", "@none.json"), "none.json"),
        (("run", str(plan), "--input", str(plan)), f"--input @{plan}"),
        (("run", "-", "--input", "-"), "both"),
        (("run", str(plan), "--timeout", "30"), "--timeout"),
        (("cancel", "x", "--grace", "soon"), "--grace"),
        (("up", "--workers", "-1"), "--workers"),
        (("queue", "set", "gpu", "--pause", "--unpause"), "--pause and --unpause"),
        (("queue", "set", "gpu"), "nothing to set"),
        (("namespace", "set", "--encrypt", "--no-encrypt"), "--encrypt and --no-encrypt"),
        (("frobnicate",), "frobnicate"),
    ]:
        result = stretto(*arguments)
        assert result.exit_code == ExitStatus.USAGE, arguments
        assert says in result.output, arguments


def test_a_users_token_is_made_once_and_taken_back(data_dir: Path) -> None:
    made = stretto("token", "add", "ada")
    assert made.exit_code == ExitStatus.SUCCESS
    assert read_token(data_dir / "tokens", "ada").reveal() == made.stdout.strip()
    listed = json.loads(stretto("token", "list", "--json").stdout)["tokens"]
    assert {"name": "ada", "kind": "USER"} in listed
    assert made.stdout.strip() not in stretto("token", "list").output
    for taken in ("ada", "operator", "Ada!"):
        assert stretto("token", "add", taken).exit_code == ExitStatus.USAGE
    assert stretto("token", "revoke", "ada").exit_code == ExitStatus.SUCCESS
    assert stretto("token", "revoke", "ada").exit_code == ExitStatus.USAGE
    assert not (data_dir / "tokens" / "ada.token").exists()


def test_a_data_directory_that_cannot_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    refused = stretto("up", "--detach", "--data-dir", str(tmp_path / "file"))
    assert refused.exit_code == ExitStatus.USAGE
    assert f"{tmp_path}/file" in refused.stderr
    assert "Errno" not in refused.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("queue", "set", "mail", "--burst", "3"), "--burst: is of a rate"),
        (("diff", RUN_ID, "--from", "yesterday"), "or a position of the log (p0:1234)"),
        (("board", "put", RUN_ID, "context/goal", "{aim: 1}"), "VALUE is not JSON"),
    ],
)
@pytest.mark.usefixtures("data_dir")
def test_a_wrong_option_is_named_with_what_would_be_right(
    arguments: tuple[str, ...], says: str
) -> None:
    result = stretto(*arguments)
    assert result.exit_code == ExitStatus.USAGE
    assert says in " ".join(result.output.split())


@pytest.mark.parametrize("way", ["write_file", "replacing"])
def test_what_is_no_file_is_written_to_and_not_replaced(tmp_path: Path, way: str) -> None:
    pipe, link = tmp_path / "pipe", tmp_path / "link"
    os.mkfifo(pipe)
    link.symlink_to(pipe)
    for asked in (pipe, link):
        with ThreadPoolExecutor(1) as reader:
            read = reader.submit(pipe.read_text)
            if way == "write_file":
                write_file(asked, "all of it")
            else:
                with replacing(asked) as file:
                    file.write(b"all of it")
            assert read.result() == "all of it"
    assert pipe.is_fifo() and link.is_symlink()
    assert sorted(tmp_path.iterdir()) == [link, pipe], "nothing beside them"


def test_a_link_to_a_file_stays_one(tmp_path: Path) -> None:
    file, link = tmp_path / "file", tmp_path / "link"
    link.symlink_to(file)
    write_file(link, "one")
    assert link.is_symlink() and file.read_text() == "one"
    with replacing(link) as given:
        given.write(b"two")
    assert link.is_symlink() and file.read_text() == "two"


def test_a_file_that_cannot_be_made_is_named_as_it_was_asked_for(tmp_path: Path) -> None:
    asked = tmp_path / "absent" / "monday.export"
    with pytest.raises(InvalidArgument) as refused, replacing(asked):
        pass
    assert refused.value.message == f"{asked}: No such file or directory"
