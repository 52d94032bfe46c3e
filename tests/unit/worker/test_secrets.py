"""Where secrets are found, what keeps one from being used, and how they are kept out of texts."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from stretto_core.telemetry.secret import Secret
from stretto_sdk.arguments.secret_references import Reveal, SecretReference, SecretUnavailable
from stretto_worker.domain.redaction import Redaction
from stretto_worker.secret_store import FILE_BYTES_MAX, SecretStore
from stretto_worker.settings import Settings, SettingsError

TEXT = 'a"b/c+d é'


def written(path: Path, content: str, mode: int = 0o600) -> Path:
    path.write_text(content)
    path.chmod(mode)
    return path


def why(store: SecretStore, name: str) -> tuple[str, str]:
    with pytest.raises(SecretUnavailable) as caught:
        store.find(name)
    return caught.value.reason, caught.value.message


@pytest.fixture
def open_directory(tmp_path: Path) -> Path:
    tmp_path.chmod(0o755)
    return tmp_path


def test_a_directory_has_a_file_for_each_and_a_new_one_counts_at_once(
    open_directory: Path,
) -> None:
    store = SecretStore(open_directory, {"B": Secret("of the environment")})
    written(open_directory / "A", "first\n")
    assert store.find("A") == Secret("first")
    written(open_directory / "A", "second")
    assert store.find("A") == Secret("second")
    assert store.find("B") == Secret("of the environment")
    written(open_directory / "B", "of the directory")
    assert store.find("B") == Secret("of the directory")
    assert why(store, "C") == ("SECRET_MISSING", "this worker has no secret named 'C'")


def test_a_file_has_all_of_them_as_json(open_directory: Path) -> None:
    path = written(open_directory / "all.json", json.dumps({"A": "first", "N": 5}))
    store = SecretStore(path, {})
    assert store.find("A") == Secret("first")
    assert why(store, "N")[0] == "SECRET_MISSING"
    path.write_text("{'A'")
    assert why(store, "A")[0] == "SECRET_UNUSABLE"


def test_a_file_that_others_may_read_is_not_used_unless_they_cannot_reach_it(
    open_directory: Path,
) -> None:
    written(open_directory / "A", "first", 0o640)
    store = SecretStore(open_directory, {})
    reason, message = why(store, "A")
    assert reason == "SECRET_UNUSABLE" and "open to other accounts" in message
    open_directory.chmod(0o700)
    assert store.find("A") == Secret("first")


def test_a_file_of_another_account_is_not_used(
    open_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(open_directory / "A", "not ours")
    if os.geteuid() == 0:
        os.chown(path, 65_534, -1)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: path.stat().st_uid + 1)
    assert why(SecretStore(open_directory, {}), "A")[0] == "SECRET_UNUSABLE"


def test_what_is_no_secrets_file(open_directory: Path) -> None:
    (open_directory / "D").mkdir(mode=0o700)
    written(open_directory / "L", "x" * (FILE_BYTES_MAX + 1))
    store = SecretStore(open_directory, {})
    for name in ("D", "L"):
        assert why(store, name)[0] == "SECRET_UNUSABLE"


def test_every_form_of_a_secret_is_replaced_wherever_it_stands() -> None:
    redaction = Redaction([Secret(TEXT), Secret("other secret")])
    forms = [
        TEXT,
        "a%22b%2Fc%2Bd%20%C3%A9",
        "a%22b%2Fc%2Bd+%C3%A9",
        json.dumps(TEXT),
        json.dumps(TEXT, ensure_ascii=False),
        "YSJiL2MrZCDDqQ==",
    ]
    for form in forms:
        assert redaction.text(f"<{form}>").replace('"', "") == "<[secret]>"
    nested = {TEXT: [{"k": f"x {TEXT}"}, 5, None, "other secret"]}
    assert redaction.value(nested) == {"[secret]": [{"k": "x [secret]"}, 5, None, "[secret]"]}


def test_a_secret_is_found_in_a_stream_however_it_is_cut() -> None:
    content = f"one {TEXT} two {TEXT}{TEXT[:4]} three {TEXT}".encode()
    for step in range(1, len(content)):
        stream = Redaction([Secret(TEXT)]).stream()
        pieces = [stream.feed(content[at : at + step]) for at in range(0, len(content), step)]
        joined = b"".join((*pieces, stream.end())).decode()
        assert joined == f"one [secret] two [secret]{TEXT[:4]} three [secret]"


def test_a_secret_that_begins_with_another_is_found_whole_however_it_is_cut() -> None:
    short, long = "password-1", "password-1-and-more"
    content = f"one {long} two {short} three".encode()
    for cut in range(len(content)):
        stream = Redaction([Secret(short), Secret(long)]).stream()
        joined = stream.feed(content[:cut]) + stream.feed(content[cut:]) + stream.end()
        assert joined == b"one [secret] two [secret] three"


def test_a_secret_that_is_no_text_is_not_used() -> None:
    reveal = Reveal(SecretStore(None, {"BROKEN": Secret("not-utf-8-\udcff")}).find)
    with pytest.raises(SecretUnavailable) as caught:
        reveal.text(SecretReference("BROKEN"))
    assert caught.value.message == "the secret 'BROKEN' is not UTF-8"


def test_without_secrets_nothing_is_held_back() -> None:
    assert Redaction([]).stream().feed(b"x") == b"x"
    assert Redaction([]).text("x") == "x"


def test_the_settings_read_secrets_and_show_none(tmp_path: Path) -> None:
    environ = {"STRETTO_SECRET_API": "hidden", "STRETTO_WORKER_SECRETS": str(tmp_path)}
    settings = Settings.from_env(environ)
    assert settings.secrets == {"API": Secret("hidden")}
    assert settings.secrets_path == tmp_path
    assert "hidden" not in repr(settings)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("STRETTO_WORKER_SECRETS", "absent"),
        ("STRETTO_HTTP_CA_FILE", "absent.pem"),
        ("STRETTO_HTTP_CA_FILE", __file__),
        ("STRETTO_HTTP_ALLOW", "http://example.com"),
        ("STRETTO_HTTP_DENY", "10.0.0.0/33"),
    ],
)
def test_a_wrong_setting_is_named(name: str, text: str) -> None:
    with pytest.raises(SettingsError, match=name):
        Settings.from_env({name: text})
