"""Which suite, as whom: flags before the environment, before the config file, before what runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from stretto_cli.settings import Flags, Settings, effective_settings
from stretto_cli.suite.directory import SuiteDirectory
from stretto_cli.suite.known import note_suite
from stretto_core.errors import InvalidArgument

TOKEN = "stretto_" + "x" * 8


@pytest.fixture
def environ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    # Nobody's own suite, config or home has a part in this.
    monkeypatch.setattr(
        "stretto_cli.settings.default_data_directory",
        lambda environ: Path(environ.get("STRETTO_DATA_DIR", tmp_path / "default")),
    )
    return {
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
        "XDG_STATE_HOME": str(tmp_path / "state"),
    }


def config(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "config" / "stretto" / "config.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def token_file(tmp_path: Path, name: str = "me.token", mode: int = 0o600) -> Path:
    path = tmp_path / name
    path.write_text(TOKEN)
    path.chmod(mode)
    return path


def test_each_source_stands_before_the_next(tmp_path: Path, environ: dict[str, str]) -> None:
    config(tmp_path, '[default]\naddress = "config:1"\nnamespace = "c"\n')
    said = {**environ, "STRETTO_ADDRESS": "env:1", "STRETTO_NAMESPACE": "e"}
    for flags, environment, address, namespace in [
        (Flags(address="flag:1", namespace="f"), said, "flag:1", "f"),
        (Flags(), said, "env:1", "e"),
        (Flags(), environ, "config:1", "c"),
    ]:
        found = effective_settings(flags, environment)
        assert (found.address.value, found.namespace.value) == (address, namespace)
        assert found.elsewhere
    # What names a suite at a higher rank decides, be it an address or a directory.
    directory = effective_settings(Flags(data_dir=tmp_path / "d"), said)
    assert (directory.address.value, directory.data_dir.origin) == ("", "--data-dir")
    assert not directory.elsewhere


def test_a_context_is_a_table_of_the_file_and_its_paths_are_relative_to_it(
    tmp_path: Path, environ: dict[str, str]
) -> None:
    path = config(tmp_path, '[lab]\ndata_dir = "data"\nnamespace = "search"\n')
    lab = effective_settings(Flags(context="lab"), environ)
    assert lab.data_dir.value == str(path.parent / "data")
    assert lab.namespace.value == "search"
    assert effective_settings(Flags(), environ).data_dir.origin == "default"
    assert effective_settings(Flags(), {**environ, "STRETTO_CONTEXT": "lab"}) == lab
    with pytest.raises(InvalidArgument, match="did you mean lab"):
        effective_settings(Flags(context="lob"), environ)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('[default]\naddres = "x:1"\n', "did you mean address?"),
        ("[default]\naddress = 7\n", "is a text"),
        ('address = "x:1"\n', r"below \[default\]"),
        ("[default\n", "not TOML"),
        ('[default]\ntoken = "secret"\n', "did you mean token_file?"),
    ],
)
def test_a_mistake_in_the_file_is_named(
    tmp_path: Path, environ: dict[str, str], text: str, says: str
) -> None:
    path = config(tmp_path, text)
    with pytest.raises(InvalidArgument, match=says) as refused:
        effective_settings(Flags(), environ)
    assert str(path) in refused.value.message
    assert "secret" not in refused.value.message


def test_what_is_no_namespace_is_refused_by_who_said_it(
    tmp_path: Path, environ: dict[str, str]
) -> None:
    config(tmp_path, '[default]\nnamespace = "-c"\n')
    said = {**environ, "STRETTO_NAMESPACE": "E"}
    for flags, environment, says in [
        (Flags(namespace="a b"), said, "--namespace: 'a b' is no namespace"),
        (Flags(), said, "STRETTO_NAMESPACE: 'E' is no namespace"),
        (Flags(), environ, "'-c' is no namespace"),
    ]:
        with pytest.raises(InvalidArgument, match=says):
            effective_settings(flags, environment)


def test_a_token_goes_only_to_the_suite_it_belongs_to(
    tmp_path: Path, environ: dict[str, str]
) -> None:
    mine = token_file(tmp_path)
    config(tmp_path, f'[default]\naddress = "config:1"\ntoken_file = "{mine}"\n')

    def token_of(found: Settings) -> str | None:
        return None if found.secret is None else found.secret.reveal()

    assert token_of(effective_settings(Flags(), environ)) == TOKEN
    assert token_of(effective_settings(Flags(address="other:1"), environ)) is None
    given = effective_settings(Flags(address="other:1", token_file=mine), environ)
    assert token_of(given) == TOKEN
    assert TOKEN not in repr(given)
    by_environment = {**environ, "STRETTO_TOKEN_FILE": str(mine)}
    assert effective_settings(Flags(), by_environment).token.origin == "$STRETTO_TOKEN_FILE"


@pytest.mark.parametrize("mode", [0o640, 0o604])
def test_a_token_that_others_may_read_is_refused(
    tmp_path: Path, environ: dict[str, str], mode: int
) -> None:
    with pytest.raises(InvalidArgument, match="chmod 600"):
        effective_settings(Flags(token_file=token_file(tmp_path, mode=mode)), environ)
    with pytest.raises(InvalidArgument, match="No such file"):
        effective_settings(Flags(token_file=tmp_path / "none"), environ)


@pytest.fixture
def running(tmp_path: Path, environ: dict[str, str]) -> Iterator[list[SuiteDirectory]]:
    """Two suites, started in this order; both are held until the test ends."""
    directories = [SuiteDirectory(tmp_path / name) for name in ("one", "two")]
    held = []
    for directory in directories:
        held.append(directory.own())
        note_suite(directory, environ)
    yield directories
    for lock in held:
        lock.close()


def test_the_one_suite_of_this_machine_is_found_wherever_its_data_is(
    tmp_path: Path, environ: dict[str, str]
) -> None:
    directory = SuiteDirectory(tmp_path / "elsewhere")
    with directory.own():
        note_suite(directory, environ)
        found = effective_settings(Flags(), environ)
        assert found.data_dir.value == str(directory.root)
        # `up` must not take it for its own.
        starting = effective_settings(Flags(), environ, discover=False)
        assert starting.data_dir.origin == "default"
        with SuiteDirectory(tmp_path / "default").own():
            assert effective_settings(Flags(), environ).data_dir.origin == "default"
    assert effective_settings(Flags(), environ).data_dir.origin == "default"


def test_of_several_suites_none_is_guessed(
    environ: dict[str, str], running: list[SuiteDirectory]
) -> None:
    with pytest.raises(InvalidArgument, match="--data-dir") as refused:
        effective_settings(Flags(), environ)
    assert all(str(each.root) in refused.value.message for each in running)
    named = effective_settings(Flags(data_dir=running[0].root), environ)
    assert named.data_dir.value == str(running[0].root)
    hints = Path(environ["XDG_STATE_HOME"]) / "stretto-suites"
    assert {each.readlink() for each in hints.iterdir()} == {each.root for each in running}
