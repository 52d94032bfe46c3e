"""Which paths an account reaches, and where a suite's data goes when nobody says."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from stretto_core.localstack.account import Account, first_unreachable, make_enterable
from stretto_core.localstack.data_directory import default_data_directory

STATE_DIRECTORY = "/var/lib/stretto" if os.geteuid() == 0 else "/state/stretto"
STRANGER = Account("stranger", uid=54_321, gid=54_321)


def test_an_postgres_directory_is_reached(postgres_directory: Path) -> None:
    assert first_unreachable(postgres_directory, STRANGER) is None
    assert first_unreachable(postgres_directory / "not" / "yet", STRANGER) is None


def test_a_closed_directory_on_the_way_is_named(postgres_directory: Path) -> None:
    closed = postgres_directory / "home"
    (closed / "below").mkdir(parents=True)
    closed.chmod(0o700)
    assert first_unreachable(closed / "below", STRANGER) == closed


@pytest.mark.parametrize(("mode", "reached"), [(0o755, True), (0o711, False), (0o644, False)])
def test_a_program_must_be_read_and_run(postgres_directory: Path, mode: int, reached: bool) -> None:
    program = postgres_directory / "program"
    program.touch()
    program.chmod(mode)
    assert (first_unreachable(program, STRANGER) is None) is reached


def test_an_owner_is_held_to_the_owners_rights(postgres_directory: Path) -> None:
    (postgres_directory / "mine").mkdir(mode=0o055)
    (postgres_directory / "mine").chmod(0o055)
    me = Account("me", os.geteuid(), os.getegid())
    assert first_unreachable(postgres_directory / "mine", me) == postgres_directory / "mine"


def test_made_directories_can_be_entered_whatever_the_umask(postgres_directory: Path) -> None:
    before = os.umask(0o077)
    try:
        make_enterable(postgres_directory / "a" / "b")
    finally:
        os.umask(before)
    assert first_unreachable(postgres_directory / "a" / "b", STRANGER) is None


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"STRETTO_DATA_DIR": "/data"}, "/data"),
        ({"XDG_STATE_HOME": "/state"}, STATE_DIRECTORY),
    ],
)
def test_the_default_data_directory(environ: dict[str, str], expected: str) -> None:
    assert default_data_directory(environ) == Path(expected)
