"""Where the client finds the suite and its token."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from stretto_core.errors import InvalidArgument
from stretto_core.rpc.tokens import TokenRefused, ensure_tokens, read_token, read_token_file
from stretto_sdk.endpoint import NoEndpoint, find_endpoint


def test_what_is_given_comes_before_the_environment_before_the_data_directory(
    tmp_path: Path,
) -> None:
    environ = {"STRETTO_ADDRESS": "env:1", "STRETTO_TOKEN": "from-env"}
    (tmp_path / "endpoint.json").write_text(json.dumps({"address": "file:1"}))
    ensure_tokens(tmp_path / "tokens")
    given = find_endpoint("arg:1", "from-arg", data_directory=tmp_path, environ=environ)
    assert given.address == "arg:1"
    assert given.token is not None
    assert given.token.reveal() == "from-arg"
    by_environ = find_endpoint(data_directory=tmp_path, environ=environ)
    assert (by_environ.address, by_environ.token and by_environ.token.reveal()) == (
        "env:1",
        "from-env",
    )
    by_file = find_endpoint(data_directory=tmp_path, environ={})
    assert (by_file.address, by_file.token) == (
        "file:1",
        read_token(tmp_path / "tokens", "operator"),
    )


def test_the_token_of_the_data_directory_is_never_sent_elsewhere(tmp_path: Path) -> None:
    ensure_tokens(tmp_path / "tokens")
    assert find_endpoint("arg:1", data_directory=tmp_path, environ={}).token is None


def test_without_any_suite_it_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(NoEndpoint, match="stretto up"):
        find_endpoint(data_directory=tmp_path, environ={})


def test_an_endpoint_never_shows_its_token() -> None:
    assert "s3cret" not in repr(find_endpoint("arg:1", "s3cret", environ={}))


@pytest.mark.parametrize("address", ["garbage", ":7788", "host:", "127.0.0.1:99999", "host:0"])
def test_what_is_no_address_is_refused_before_anything_is_dialled(
    address: str, tmp_path: Path
) -> None:
    with pytest.raises(InvalidArgument, match="HOST:PORT"):
        find_endpoint(address, data_directory=tmp_path, environ={})


@pytest.mark.parametrize("token", ["two words", "two\nlines", "tök", " ", "\x07"])
def test_what_no_header_can_carry_is_no_token(token: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="no token"):
        find_endpoint("arg:1", token, environ={})
    file = tmp_path / "a.token"
    for content in (token.encode(), b"", b"\xff\xfe"):
        file.write_bytes(content)
        with pytest.raises(TokenRefused, match=r"a\.token holds no token"):
            read_token_file(file)
