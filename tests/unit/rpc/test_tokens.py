"""Token files: made, read, followed, guarded against other eyes."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from stretto.common.v1.principal_pb2 import PRINCIPAL_KIND_USER, PRINCIPAL_KIND_WORKER
from stretto_core.rpc.tokens import (
    TOKENS_FILE,
    TokenFile,
    TokenRefused,
    add_token,
    ensure_tokens,
    read_table,
    read_token,
    remove_token,
)


def test_every_service_gets_a_token_of_its_own(tmp_path: Path) -> None:
    table = ensure_tokens(tmp_path / "tokens")
    texts = set()
    for name in ("operator", "worker", "verifier", "env"):
        token = read_token(tmp_path / "tokens", name).reveal()
        principal = table.principal_of(token)
        assert principal is not None
        assert principal.name == name
        texts.add(token)
    assert len(texts) == 4
    assert table.principal_of("stretto_guess") is None


def test_made_again_they_stay_the_same(tmp_path: Path) -> None:
    ensure_tokens(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    ensure_tokens(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_lost_token_is_made_anew_and_the_old_one_is_worthless(tmp_path: Path) -> None:
    ensure_tokens(tmp_path)
    old = read_token(tmp_path, "worker").reveal()
    (tmp_path / "worker.token").unlink()
    table = ensure_tokens(tmp_path)
    assert table.principal_of(old) is None
    principal = table.principal_of(read_token(tmp_path, "worker").reveal())
    assert principal is not None
    assert principal.kind == PRINCIPAL_KIND_WORKER


def test_only_the_owner_may_read_them(tmp_path: Path) -> None:
    ensure_tokens(tmp_path / "tokens")
    assert stat.S_IMODE((tmp_path / "tokens").stat().st_mode) == 0o700
    modes = {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "tokens").iterdir()}
    assert modes == {0o600}


def test_the_table_holds_no_token(tmp_path: Path) -> None:
    ensure_tokens(tmp_path)
    token = read_token(tmp_path, "operator").reveal()
    assert token not in (tmp_path / TOKENS_FILE).read_text()


def test_a_users_token_is_added_and_removed(tmp_path: Path) -> None:
    ensure_tokens(tmp_path)
    token = add_token(tmp_path, "ada")
    principal = read_table(tmp_path).principal_of(token.reveal())
    assert principal is not None
    assert (principal.kind, principal.name) == (PRINCIPAL_KIND_USER, "ada")
    remove_token(tmp_path, "ada")
    assert read_table(tmp_path).principal_of(token.reveal()) is None
    with pytest.raises(TokenRefused):
        read_token(tmp_path, "ada")


@pytest.mark.parametrize("name", ["operator", "anonymous", "", "Ada", "../x", "a" * 64, "tokens"])
def test_a_name_that_is_taken_or_wrong_is_refused(tmp_path: Path, name: str) -> None:
    ensure_tokens(tmp_path)
    with pytest.raises(TokenRefused):
        add_token(tmp_path, name)


def test_a_service_keeps_its_token(tmp_path: Path) -> None:
    ensure_tokens(tmp_path)
    with pytest.raises(TokenRefused):
        remove_token(tmp_path, "worker")


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"tokens": [{"name": "x"}]}', "\x00"])
def test_a_file_that_is_not_ours_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / TOKENS_FILE).write_text(content)
    with pytest.raises(TokenRefused):
        read_table(tmp_path)


def test_a_running_server_follows_the_file(tmp_path: Path) -> None:
    now_s = 0.0
    ensure_tokens(tmp_path)
    followed = TokenFile(tmp_path, lambda: now_s)
    token = add_token(tmp_path, "ada").reveal()
    assert followed.principal_of(token) is not None, "a new one counts at once"
    remove_token(tmp_path, "ada")
    now_s = 0.5
    assert followed.principal_of(token) is not None, "the file is not looked at for every call"
    now_s = 1.0
    assert followed.principal_of(token) is None


def test_a_file_broken_under_way_revokes_nothing(tmp_path: Path) -> None:
    now_s = 0.0
    ensure_tokens(tmp_path)
    followed = TokenFile(tmp_path, lambda: now_s)
    (tmp_path / TOKENS_FILE).write_text("{")
    now_s = 5.0
    assert followed.principal_of(read_token(tmp_path, "worker").reveal()) is not None
