"""What the arguments of an http task mean: the request to make and how to read its answer.

Placeholders are filled in `url` (percent-encoded; alone they may be the whole address), `headers`,
`query`, `json` (alone they are the input itself, a number stays a number) and `text`. A secret is
named by reference in the values of headers, query and json.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final
from urllib.parse import quote, urlsplit

from stretto_sdk.arguments.placeholders import Placeholders
from stretto_sdk.arguments.secret_references import (
    SecretReference,
    reference_of,
    text_or_secret,
)
from stretto_sdk.fields import Fields, Mistakes
from stretto_sdk.strict_json import parse_json, to_json

METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
HEADERS_MAX: Final = 64
RESPONSE_BYTES_DEFAULT: Final = 64 * 1024
RESPONSE_BYTES_MAX: Final = 4 * 1024 * 1024
REDIRECTS_DEFAULT: Final = 5
REDIRECTS_MAX: Final = 20
CONNECT_S_DEFAULT: Final = 10.0
READ_S_DEFAULT: Final = 60.0
TOTAL_S_DEFAULT: Final = 300.0
RETRYABLE: Final = frozenset({408, 425, 429, *range(500, 600)})
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
# The client says these itself; another word in them could make one request read as two.
_HEADERS_OURS = {"connection", "content-length", "expect", "host", "keep-alive", "te", "trailer"}
_HEADERS_OURS |= {"transfer-encoding", "upgrade", "proxy-authorization", "proxy-connection"}


class Expect(Enum):
    """How the answer's body becomes part of the result."""

    JSON = "json"
    """One JSON value; nothing at all is null."""
    TEXT = "text"
    """A string, in the character set the answer names, UTF-8 by default."""
    NOTHING = "none"
    """It is not read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """How answers are read. Statuses named here stand before the defaults."""

    expect: Expect = Expect.JSON
    success: frozenset[int] = frozenset(range(200, 300))
    retryable: frozenset[int] = frozenset()
    final: frozenset[int] = frozenset()
    headers: tuple[str, ...] = ("content-type",)

    def is_retryable(self, status: int) -> bool:
        """Whether another attempt may help after this status."""
        return status not in self.final and (status in self.retryable or status in RETRYABLE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Of one call, in seconds and bytes; `total_s` holds over all its redirects."""

    connect_s: float = CONNECT_S_DEFAULT
    read_s: float = READ_S_DEFAULT
    total_s: float = TOTAL_S_DEFAULT
    response_bytes_max: int = RESPONSE_BYTES_DEFAULT
    redirects_max: int = REDIRECTS_DEFAULT


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpTask:
    """A request whose secrets are names still. body: text or a JSON value, as `is_json` says."""

    method: str
    url: str
    headers: Mapping[str, str | SecretReference]
    query: tuple[tuple[str, str | SecretReference], ...]
    body: object
    is_json: bool
    answers: Answers
    limits: Limits


def parse_task(arguments_json: str, inputs: Mapping[str, object]) -> HttpTask:
    """Return what a task asks for. Raises InvalidArgument with every mistake."""
    mistakes = Mistakes()
    value = parse_json(arguments_json or "{}", source="the arguments")
    task = read_task(Fields(value, "", mistakes), Placeholders(inputs, mistakes))
    mistakes.raise_if_any("the arguments object")
    return task


def read_task(fields: Fields, fill: Placeholders) -> HttpTask:
    """Return the request that the fields describe as far as it can be read; note the rest."""
    body, is_json = _body(fields, fill)
    method = fields.word(
        "method", {name: name for name in METHODS}, "GET" if body is None else "POST"
    )
    if body is not None and method in ("GET", "HEAD"):
        fields.wrong("method", f"is {method}, which has no body")
    task = HttpTask(
        method=method,
        url=_url(fields, fill),
        headers=_headers(fields, fill),
        query=tuple(_query(fields, fill)),
        body=body,
        is_json=is_json,
        answers=_answers(fields),
        limits=_limits(fields),
    )
    fields.finish()
    return task


def address_mistake(url: str) -> str:
    """Return what keeps a text from being an address that can be called, "" for nothing."""
    if not url.isascii() or not url.isprintable() or " " in url:
        return "must be percent-encoded: printable ASCII without spaces"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        return f"is no address: {error}"
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        return "must be an http:// or https:// address"
    if "@" in parts.netloc:
        return "may hold no user or password: name a secret in a header"
    return ""


def _url(fields: Fields, fill: Placeholders) -> str:
    text = fields.text("url", required=True)
    if re.fullmatch(r"\$\{[^}]*\}", text):
        url = fill.fill(text, fields.at("url"))
        if fill.names_only:
            return url  # The whole address is an input's, and that is not known yet.
    else:
        url = fill.fill(text, fields.at("url"), lambda value: quote(value, safe=""))
    wrong = address_mistake(url) if text else ""
    if wrong:
        fields.wrong("url", wrong)
    return url


def _headers(fields: Fields, fill: Placeholders) -> dict[str, str | SecretReference]:
    headers: dict[str, str | SecretReference] = {}
    for path, name, value in fields.members("headers"):
        if not _TOKEN.fullmatch(name) or name.lower() in _HEADERS_OURS:
            fields.mistakes.add(path, "is no header that a task may set")
        elif name.lower() in {each.lower() for each in headers}:
            fields.mistakes.add(path, "is given twice")
        headers[name] = text_or_secret(value, path, fields.mistakes, fill)
    if len(headers) > HEADERS_MAX:
        fields.wrong("headers", f"has more than {HEADERS_MAX} entries")
    return headers


def _query(fields: Fields, fill: Placeholders) -> Iterator[tuple[str, str | SecretReference]]:
    for path, name, value in fields.members("query"):
        values = value if isinstance(value, list) else [value]
        for each in values:
            plain = isinstance(each, bool | int | float)
            text = to_json(each, source="it") if plain else each
            yield name, text_or_secret(text, path, fields.mistakes, fill)


def _body(fields: Fields, fill: Placeholders) -> tuple[object, bool]:
    """Return the body, None for none, and whether it is JSON."""
    has_json, has_text = fields.has("json"), fields.has("text")
    if has_json and has_text:
        fields.wrong("text", "stands beside json: a request has one body")
    if has_json:
        return _json(fields.value("json"), fields.at("json"), fields.mistakes, fill), True
    return (fill.fill(fields.text("text"), fields.at("text")) if has_text else None), False


def _json(value: object, path: str, mistakes: Mistakes, fill: Placeholders) -> object:
    reference = reference_of(value, path, mistakes)
    if reference is not None:
        return reference
    match value:
        case str():
            return fill.value(value, path)
        case dict():
            return {
                key: _json(each, f"{path}.{key}", mistakes, fill) for key, each in value.items()
            }
        case list():
            return [
                _json(each, f"{path}[{index}]", mistakes, fill) for index, each in enumerate(value)
            ]
    return value


def _answers(fields: Fields) -> Answers:
    known = Answers()
    names = tuple(name.lower() for name in fields.texts("result_headers"))
    return Answers(
        expect=fields.word("expect", {each.value: each for each in Expect}, known.expect),
        success=_statuses(fields, "success_statuses") or known.success,
        retryable=_statuses(fields, "retryable_statuses"),
        final=_statuses(fields, "final_statuses"),
        headers=names if fields.has("result_headers") else known.headers,
    )


def _statuses(fields: Fields, name: str) -> frozenset[int]:
    def read(value: object, path: str, mistakes: Mistakes) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not 100 <= value <= 599:
            mistakes.add(path, "must be a status, 100 to 599")
            return 0
        return value

    return frozenset(fields.each(name, read))


def _limits(fields: Fields) -> Limits:
    known = Limits()
    redirects_max = fields.integer("redirects_max", low=0, high=REDIRECTS_MAX)
    return Limits(
        connect_s=_seconds(fields, "connect_timeout", known.connect_s),
        read_s=_seconds(fields, "read_timeout", known.read_s),
        total_s=_seconds(fields, "timeout", known.total_s),
        response_bytes_max=fields.integer("response_bytes_max", low=1, high=RESPONSE_BYTES_MAX)
        or known.response_bytes_max,
        redirects_max=redirects_max if fields.has("redirects_max") else known.redirects_max,
    )


def _seconds(fields: Fields, name: str, default_s: float) -> float:
    span = fields.duration(name)
    if span is None:
        return default_s
    if span.ToNanoseconds() == 0:
        fields.wrong(name, "must be longer than 0s")
    return span.ToNanoseconds() / 1e9
