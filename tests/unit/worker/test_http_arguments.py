"""What an http task may say, and every mistake in it at once."""

from __future__ import annotations

import json
from typing import Any

import pytest
from stretto_core.errors import InvalidArgument
from stretto_core.telemetry.secret import Secret
from stretto_sdk.arguments.http import parse_task
from stretto_worker.domain.http_request import REQUEST_BYTES_MAX, request_of


def find(name: str) -> Secret:
    return Secret(f"the text of {name}")


def mistakes_in(arguments: dict[str, Any], **inputs: object) -> dict[str, str]:
    with pytest.raises(InvalidArgument) as caught:
        parse_task(json.dumps(arguments), inputs)
    return {each.field: each.description for each in caught.value.violations}


def test_every_mistake_is_named() -> None:
    found = mistakes_in(
        {
            "methd": "GET",
            "url": "ftp://example.com",
            "headers": {"Host": "x", "a b": "x", "X": 5, "Y": {"secret": "no/name"}, "y": "again"},
            "query": {"a": {"b": 1}},
            "json": {"a": "${inputs.absent}"},
            "text": "two bodies",
            "expect": "xml",
            "retryable_statuses": [42],
            "timeout": "0s",
            "read_timeout": 5,
            "response_bytes_max": 0,
            "redirects_max": 21,
        }
    )
    assert set(found) == {
        "methd",
        "url",
        "headers.Host",
        'headers["a b"]',
        "headers.X",
        "headers.Y",
        "headers.y",
        "query.a",
        "json.a",
        "text",
        "expect",
        "retryable_statuses[0]",
        "timeout",
        "read_timeout",
        "response_bytes_max",
        "redirects_max",
    }
    assert 'did you mean "method"?' in found["methd"]


@pytest.mark.parametrize(
    "url",
    [
        "",
        "example.com",
        "/path",
        "http://",
        "http://u:p@example.com/",
        "http://example.com:99999/",
        "http://exämple.com/",
        "http://example.com/a b",
        "http://example.com/\n",
    ],
)
def test_what_is_no_address(url: str) -> None:
    assert set(mistakes_in({"url": url})) == {"url"}


def test_an_input_in_an_address_cannot_lead_elsewhere() -> None:
    inputs = {"x": "@evil.example/../?#"}
    task = parse_task('{"url": "http://example.com/${inputs.x}"}', inputs)
    assert task.url == "http://example.com/%40evil.example%2F..%2F%3F%23"
    assert "url" in mistakes_in({"url": "${inputs.x}"}, **inputs)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_read_has_no_body(method: str) -> None:
    assert "method" in mistakes_in({"url": "http://h/", "method": method, "json": 1})


def test_an_input_cannot_begin_another_header() -> None:
    arguments = '{"url": "http://h/", "headers": {"X": "${inputs.x}"}}'
    task = parse_task(arguments, {"x": "1\r\nAuthorization: mine"})
    with pytest.raises(InvalidArgument, match=r"headers\.X"):
        request_of(task, find, "key")


def test_a_request_has_a_limit() -> None:
    task = parse_task(
        '{"url": "http://h/", "text": "${inputs.x}"}', {"x": "x" * (REQUEST_BYTES_MAX + 1)}
    )
    with pytest.raises(InvalidArgument, match="more than"):
        request_of(task, find, "key")


def test_a_request_shows_nothing_of_what_may_be_secret() -> None:
    arguments = {
        "url": "http://h/p?signature=plain",
        "headers": {"A": {"secret": "A"}},
        "query": {"b": {"secret": "B"}},
        "json": [{"secret": "C"}],
    }
    request, _ = request_of(parse_task(json.dumps(arguments), {}), find, "key")
    assert request.url == "http://h/p?signature=plain&b=the%20text%20of%20B"
    assert request.body == b'["the text of C"]'
    assert repr(request) == "Request(method='POST', shown='POST http://h/p')"


def test_an_object_with_more_than_a_secret_is_a_value() -> None:
    text = '{"url": "http://h/", "json": {"secret": "A", "more": 1}}'
    request, _ = request_of(parse_task(text, {}), find, "key")
    assert json.loads(request.body or b"") == {"secret": "A", "more": 1}
