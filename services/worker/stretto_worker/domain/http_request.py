"""The request of an http task as it is sent, with its secrets in it. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import quote, urlencode, urlsplit

from stretto_sdk.arguments.http import Expect, HttpTask
from stretto_sdk.arguments.secret_references import FindSecret, Reveal
from stretto_sdk.fields import Mistakes
from stretto_sdk.strict_json import to_json

from stretto_worker.domain.redaction import Redaction

REQUEST_BYTES_MAX: Final = 4 * 1024 * 1024
HEADER_CHARACTERS_MAX: Final = 8 * 1024
URL_CHARACTERS_MAX: Final = 8 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A request as it is sent; it holds secrets, so nothing of it is ever printed.

    shown: method and address without the query, for messages.
    """

    method: str
    url: str = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    body: bytes | None = field(repr=False)
    shown: str


def request_of(task: HttpTask, find: FindSecret, idempotency_key: str) -> tuple[Request, Redaction]:
    """Return the request with its secrets, and what keeps them out of what comes back.

    idempotency_key: of the task's activation; its SHA-256 is sent, the same on every try.
    Raises SecretUnavailable; InvalidArgument for what becomes too large or no header.
    """
    reveal = Reveal(find)
    headers = {
        "User-Agent": "stretto",
        "Accept": "application/json" if task.answers.expect is Expect.JSON else "*/*",
        "Idempotency-Key": hashlib.sha256(idempotency_key.encode()).hexdigest(),
    }
    content = _content(task, reveal)
    if content is not None:
        kind = "application/json" if task.is_json else "text/plain; charset=utf-8"
        headers["Content-Type"] = kind
    own = {name.lower() for name in task.headers}
    headers = {name: text for name, text in headers.items() if name.lower() not in own}
    headers |= {name: reveal.text(value) for name, value in task.headers.items()}
    query = urlencode([(name, reveal.text(value)) for name, value in task.query], quote_via=quote)
    parts = urlsplit(task.url)
    joined = "&".join(each for each in (parts.query, query) if each)
    url = parts._replace(path=parts.path or "/", query=joined, fragment="").geturl()
    mistakes = Mistakes()
    for name, text in headers.items():
        # Filled from inputs and secrets: a line break would begin another header.
        if not text.isascii() or not text.replace("\t", " ").isprintable():
            mistakes.add(f"headers.{name}", "may hold printable ASCII characters only")
        elif len(text) > HEADER_CHARACTERS_MAX:
            mistakes.add(f"headers.{name}", f"has more than {HEADER_CHARACTERS_MAX} characters")
    if content is not None and len(content) > REQUEST_BYTES_MAX:
        mistakes.add("json" if task.is_json else "text", f"has more than {REQUEST_BYTES_MAX} bytes")
    if len(url) > URL_CHARACTERS_MAX:
        mistakes.add("url", f"has more than {URL_CHARACTERS_MAX} characters")
    mistakes.raise_if_any("the request")
    shown = f"{task.method} {parts.scheme}://{parts.netloc}{parts.path or '/'}"
    request = Request(method=task.method, url=url, headers=headers, body=content, shown=shown)
    return request, Redaction(reveal.revealed)


def _content(task: HttpTask, reveal: Reveal) -> bytes | None:
    if task.is_json:
        return to_json(reveal.value(task.body), source="json").encode()
    return None if task.body is None else str(task.body).encode("utf-8", "surrogateescape")
