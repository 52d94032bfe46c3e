"""The http executor against real servers: requests, answers, redirects, limits, TLS, secrets."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import json
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from aiohttp import web
from stretto.common.v1 import lease_pb2
from stretto.common.v1.payload_pb2 import Payload
from stretto.work.v1 import work_pb2
from stretto_core.clock.system import SystemClock
from stretto_core.telemetry.secret import Secret
from stretto_sdk.worker.effects import Ending, Failed, LeaseKey, Stop, StopKind, Stopped, Succeeded
from stretto_worker.domain.host_rules import HostRules
from stretto_worker.http.executor import HttpExecutor, HttpSettings
from stretto_worker.secret_store import SecretStore

from tests.integration.worker.conftest import environment
from tests.integration.worker.http_server import HttpServer, http_server
from tests.integration.worker.test_process_executor import Reported, failure, value
from tests.waiting import until

KEY = LeaseKey("t", 1)
TOKEN = 'abc"d/e+f g%'
SECRETS = {"API": Secret(TOKEN), "SHORT": Secret("short"), "BROKEN": Secret("line\nbreaking")}


class Endings(Reported):
    """What an executor reports that writes no log."""

    def __init__(self) -> None:
        self.endings = {}


class Bench:
    """An executor and what it reported."""

    def __init__(self, rules: HostRules, authorities: Path | None = None) -> None:
        self.reported = Endings()
        self.executor = HttpExecutor(
            HttpSettings(rules=rules, authorities=authorities),
            find_secret=SecretStore(None, SECRETS).find,
            clock=SystemClock(),
        )
        self.executor.attach(self.reported)

    def begin(self, arguments: dict[str, Any], *, activation: int = 1, **inputs: object) -> None:
        self.reported.endings.clear()
        assignment = work_pb2.Assignment(
            token=lease_pb2.LeaseToken(work_item=KEY.work_item, epoch=KEY.epoch),
            run="namespaces/default/runs/r",
            task="call",
            activation=activation,
            attempt=1,
            arguments_json=json.dumps(arguments),
            inputs={name: Payload(json=json.dumps(each)) for name, each in inputs.items()},
        )
        self.executor.begin(assignment)

    async def end(self) -> Ending:
        await until(lambda: KEY in self.reported.endings)
        return self.reported.endings[KEY]

    async def call(self, url: str, **arguments: Any) -> Ending:
        self.begin({"url": url, **arguments})
        return await self.end()


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    made = Bench(HostRules())
    yield made
    await made.executor.close()


@pytest.fixture
async def server() -> AsyncIterator[HttpServer]:
    async with http_server() as server:
        yield server


@pytest.fixture
async def other() -> AsyncIterator[HttpServer]:
    async with http_server() as server:
        yield server


async def test_a_request_is_made_from_arguments_and_inputs_and_its_answer_is_the_result(
    bench: Bench, server: HttpServer
) -> None:
    arguments = {
        "url": server.origin + "/users/${inputs.user}?a=1",
        "headers": {"X-Team": "team ${inputs.user}"},
        "query": {"q": "${inputs.user}", "n": [1, 2.5, True]},
        "json": {"count": "${inputs.count}", "said": "${inputs.user}!", "list": ["$${x}"]},
        "result_headers": ["ETag", "Content-Type", "X-Absent"],
    }
    bench.begin(arguments, user="a/b?c", count={"n": 3})
    result: Any = value(await bench.end())
    assert result["status"] == 200
    assert result["headers"] == {
        "etag": '"v1"',
        "content-type": "application/json; charset=utf-8",
    }
    assert result["body"]["path"] == "/users/a%2Fb%3Fc?a=1&q=a%2Fb%3Fc&n=1&n=2.5&n=true"
    (asked,) = server.asked
    assert (asked.method, asked.headers["x-team"]) == ("POST", "team a/b?c")
    assert asked.headers["content-type"] == "application/json"
    assert json.loads(asked.body) == {"count": {"n": 3}, "said": "a/b?c!", "list": ["${x}"]}


async def test_an_address_and_a_text_may_come_from_inputs_whole(
    bench: Bench, server: HttpServer
) -> None:
    arguments = {
        "url": "${inputs.url}",
        "method": "PUT",
        "text": "${inputs.text}",
        "expect": "none",
    }
    bench.begin(arguments, url=server.origin + "/x?y=%3D", text="ä")
    assert value(await bench.end()) == {
        "status": 200,
        "headers": {"content-type": "application/json; charset=utf-8"},
        "body": None,
    }
    (asked,) = server.asked
    assert (asked.method, asked.path, asked.body) == ("PUT", "/x?y=%3D", "ä".encode())


async def test_the_key_is_the_same_on_every_try_of_an_activation_and_anothers_is_another(
    bench: Bench, server: HttpServer
) -> None:
    for activation in (1, 1, 2):
        bench.begin({"url": server.origin, "method": "POST"}, activation=activation)
        await bench.end()
    await bench.call(server.origin, headers={"idempotency-key": "mine"})
    first, again, next_life, own = (each.headers["idempotency-key"] for each in server.asked)
    assert first == again == _digest("namespaces/default/runs/r/tasks/call@1")
    assert next_life == _digest("namespaces/default/runs/r/tasks/call@2")
    assert own == "mine"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize(
    ("status", "more", "retryable"),
    [
        *((status, {}, True) for status in (408, 425, 429, 500, 502, 503, 504)),
        *((status, {}, False) for status in (400, 401, 403, 404, 409, 422)),
        (304, {}, False),
        (409, {"retryable_statuses": [409]}, True),
        (503, {"final_statuses": [503]}, False),
        (200, {"success_statuses": [201]}, False),
    ],
)
async def test_a_status_says_whether_another_attempt_may_help(
    bench: Bench, server: HttpServer, status: int, more: dict[str, Any], retryable: bool
) -> None:
    server.answer("/x", status, '{"why": "no"}' if status != 304 else "")
    ended = await bench.call(server.origin + "/x?secretly=1", **more)
    expected = ("HTTP_STATUS", retryable, f"GET {server.origin}/x: status {status}")
    assert failure(ended) == expected
    assert isinstance(ended, Failed)
    details = json.loads(ended.failure.details.json)
    assert details["status"] == status
    assert details.get("body") == ('{"why": "no"}' if status != 304 else None)


@pytest.mark.parametrize(
    ("status", "headers", "after_s"),
    [
        (429, {"Retry_After": "7"}, 7),
        (503, {"Retry_After": "999999999999"}, 24 * 3600),
        (
            503,
            {
                "Retry_After": "Wed, 21 Oct 2065 07:29:30 GMT",
                "Date": "Wed, 21 Oct 2065 07:28:00 GMT",
            },
            90,
        ),
        (429, {"Retry_After": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0),
        (429, {"Retry_After": "soon"}, None),
        (429, {}, None),
        (404, {"Retry_After": "7"}, None),
    ],
)
async def test_an_answer_says_when_to_come_back(
    bench: Bench, server: HttpServer, status: int, headers: dict[str, str], after_s: int | None
) -> None:
    server.answer("/x", status, **headers)
    ended = await bench.call(server.origin + "/x")
    assert isinstance(ended, Failed)
    asked = ended.failure.retry_after.seconds if ended.failure.HasField("retry_after") else None
    assert asked == after_s


async def test_no_cookie_is_kept_from_one_request_for_the_next(
    bench: Bench, server: HttpServer
) -> None:
    server.answer("/x", Set_Cookie="session=of-another-task; Path=/")
    address = server.origin.replace("127.0.0.1", "localhost")
    for _ in range(2):
        assert isinstance(await bench.call(f"{address}/x"), Succeeded)
    assert ["cookie" in each.headers for each in server.asked] == [False, False]


async def test_a_redirect_within_the_host_keeps_what_the_task_said(
    bench: Bench, server: HttpServer
) -> None:
    server.redirect("/old", "/new", 308)
    await bench.call(server.origin + "/old", json=[1], headers={"Authorization": "mine"})
    asked = server.asked[-1]
    assert (asked.method, asked.path, asked.body) == ("POST", "/new", b"[1]")
    assert asked.headers["authorization"] == "mine"


async def test_a_redirect_elsewhere_takes_no_header_of_the_task_along_not_even_back_again(
    bench: Bench, server: HttpServer, other: HttpServer
) -> None:
    server.redirect("/out", other.origin + "/there")
    other.redirect("/there", server.origin + "/home")
    headers = {
        "Authorization": {"secret": "API"},
        "Cookie": "c=1",
        "X-Api-Key": "k",
        "Accept-Language": "de",
    }
    value(await bench.call(server.origin + "/out", headers=headers))
    first, home = server.asked
    (there,) = other.asked
    assert first.headers["authorization"] == TOKEN
    for each in (there, home):
        assert not {"authorization", "cookie", "x-api-key"} & set(each.headers)
        assert each.headers["accept-language"] == "de"
        assert each.headers["idempotency-key"] == first.headers["idempotency-key"]


@pytest.mark.parametrize(
    ("method", "status", "then"),
    [("POST", 301, "GET"), ("POST", 302, "GET"), ("PUT", 303, "GET"), ("HEAD", 303, "HEAD")],
)
async def test_a_redirect_may_turn_a_request_into_a_read(
    bench: Bench, server: HttpServer, method: str, status: int, then: str
) -> None:
    server.redirect("/old", "/new", status)
    body = {} if method == "HEAD" else {"text": "x"}
    value(await bench.call(server.origin + "/old", method=method, expect="text", **body))
    assert (server.asked[-1].method, server.asked[-1].body) == (then, b"")


async def test_the_length_of_a_body_that_does_not_come_is_no_limit(
    bench: Bench, server: HttpServer
) -> None:
    server.handlers["/x"] = _announces_much
    ended = await bench.call(server.origin + "/x", method="HEAD", result_headers=["content-length"])
    assert value(ended)["headers"] == {"content-length": "100000"}  # type: ignore[index]


async def test_redirects_that_are_not_followed(
    bench: Bench, server: HttpServer, other: HttpServer
) -> None:
    server.redirect("/body", other.origin, 307)
    assert failure(await bench.call(server.origin + "/body", json=1))[:2] == (
        "REDIRECT_REFUSED",
        False,
    )
    assert not other.asked
    for target in ("file:///etc/passwd", "ftp://h/", "http://u:p@h/"):
        server.redirect("/odd", target)
        assert failure(await bench.call(server.origin + "/odd"))[:2] == ("REDIRECT_REFUSED", False)
    server.redirect("/circle", "/circle")
    ended = await bench.call(server.origin + "/circle", redirects_max=2)
    assert failure(ended)[:2] == ("TOO_MANY_REDIRECTS", False)
    assert sum(each.path == "/circle" for each in server.asked) == 3
    ended = await bench.call(server.origin + "/circle", redirects_max=0, success_statuses=[302])
    assert value(ended)["status"] == 302  # type: ignore[index]


async def _drips(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    await response.write(b"[")
    await asyncio.Event().wait()
    raise AssertionError


async def _breaks_off(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Length": "100"})
    await response.prepare(request)
    await response.write(b"[")
    assert request.transport is not None
    request.transport.abort()
    return response


async def _floods(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    while True:
        await response.write(b"x" * 10_000)


async def _bombs(request: web.Request) -> web.StreamResponse:
    packed = gzip.compress(b" " * 10_000_000)
    return web.Response(body=packed, headers={"Content-Encoding": "gzip"})


async def _announces_much(request: web.Request) -> web.StreamResponse:
    return web.Response(body=b"x" * 100_000)


@pytest.mark.parametrize(
    ("handler", "more", "reason", "retryable"),
    [
        (_drips, {"read_timeout": "50ms"}, "HTTP_TIMEOUT", True),
        (_drips, {"timeout": "50ms"}, "HTTP_TIMEOUT", True),
        (_breaks_off, {}, "CONNECTION_LOST", True),
        (_floods, {"response_bytes_max": 50_000}, "RESPONSE_TOO_LARGE", False),
        (_bombs, {"response_bytes_max": 50_000}, "RESPONSE_TOO_LARGE", False),
        (_announces_much, {}, "RESPONSE_TOO_LARGE", False),
    ],
)
async def test_an_answer_that_is_slow_broken_or_too_large(
    bench: Bench,
    server: HttpServer,
    *,
    handler: Any,
    more: dict[str, Any],
    reason: str,
    retryable: bool,
) -> None:
    server.handlers["/x"] = handler
    assert failure(await bench.call(server.origin + "/x", **more))[:2] == (reason, retryable)


@pytest.mark.parametrize(
    ("text", "more", "reason"),
    [
        ("<html>", {}, "INVALID_RESPONSE"),
        ('{"a": 1, "a": 2}', {}, "INVALID_RESPONSE"),
        ("NaN", {}, "INVALID_RESPONSE"),
    ],
)
async def test_an_answer_that_is_no_result_is_final(
    bench: Bench, server: HttpServer, text: str, more: dict[str, Any], reason: str
) -> None:
    server.answer("/x", 200, text)
    assert failure(await bench.call(server.origin + "/x", **more))[:2] == (reason, False)


async def test_a_text_is_read_in_its_own_character_set(bench: Bench, server: HttpServer) -> None:
    async def latin(_: web.Request) -> web.StreamResponse:
        return web.Response(
            body="ü".encode("latin-1"), content_type="text/plain", charset="latin-1"
        )

    server.handlers["/x"] = latin
    assert value(await bench.call(server.origin + "/x", expect="text"))["body"] == "ü"  # type: ignore[index]
    server.handlers["/y"] = lambda _: _respond(b"\xff")
    assert failure(await bench.call(server.origin + "/y", expect="text"))[0] == "INVALID_RESPONSE"


@pytest.mark.parametrize("name", ["punycode", "idna", "undefined", "unicode_escape", "hex"])
async def test_a_server_cannot_choose_a_codec_that_is_no_character_set(
    bench: Bench, server: HttpServer, name: str
) -> None:
    # Decoding a long text as punycode would stop the worker's loop for hours.
    server.handlers["/x"] = lambda _: _respond(b"a-" + b"b" * 60_000, f"text/plain; charset={name}")
    assert failure(await bench.call(server.origin + "/x", expect="text"))[:2] == (
        "INVALID_RESPONSE",
        False,
    )


async def _respond(body: bytes, content_type: str = "text/plain") -> web.StreamResponse:
    return web.Response(body=body, headers={"content-type": content_type})


async def test_a_host_that_cannot_be_reached_may_be_later(bench: Bench, server: HttpServer) -> None:
    ended = await bench.call("http://127.0.0.1:1/")
    assert failure(ended) == (
        "NOT_CONNECTED",
        True,
        "GET http://127.0.0.1:1/: 127.0.0.1:1: Connection refused",
    )
    ended = await bench.call("http://nobody.invalid/")
    assert failure(ended) == (
        "HOST_UNKNOWN",
        True,
        "GET http://nobody.invalid/: the host's name was not found",
    )


async def test_no_proxy_of_the_environment_is_asked(
    bench: Bench, server: HttpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert value(await bench.call(server.origin))["status"] == 200  # type: ignore[index]


@pytest.mark.parametrize("kind", [StopKind.CANCEL, StopKind.REVOKE, StopKind.INTERRUPT])
async def test_a_stop_closes_the_connection(
    bench: Bench, server: HttpServer, kind: StopKind
) -> None:
    server.handlers["/x"] = server.hang
    bench.begin({"url": server.origin + "/x"})
    await until(lambda: bool(server.asked))
    bench.executor.stop(Stop(KEY, kind, "enough"))
    assert await bench.end() == Stopped()
    await asyncio.wait_for(server.lost.wait(), 60)


async def test_a_stop_before_the_request_began_ends_it(bench: Bench, server: HttpServer) -> None:
    bench.begin({"url": server.origin})
    bench.executor.stop(Stop(KEY, StopKind.CANCEL, "enough"))
    assert await bench.end() == Stopped()
    assert not server.asked


async def test_certificates_are_verified_and_an_authority_can_be_added(tmp_path: Path) -> None:
    authority = trustme.CA()
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(tls)
    known = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(known))
    async with http_server(tls) as server:
        for authorities in (None, known):
            bench = Bench(HostRules(), authorities)
            ended = await bench.call(server.origin)
            await bench.executor.close()
            if authorities is None:
                assert failure(ended)[:2] == ("TLS_REFUSED", False)
                assert not server.asked
            else:
                assert value(ended)["status"] == 200  # type: ignore[index]


async def test_secrets_reach_the_server_and_nothing_that_comes_back_holds_them(
    bench: Bench, server: HttpServer
) -> None:
    arguments = {
        "headers": {"Authorization": {"secret": "API", "prefix": "Bearer "}},
        "query": {"key": {"secret": "API"}},
        "json": {"password": {"secret": "API"}, "odd": "${inputs.odd}"},
        "result_headers": ["x-echo"],
    }
    looks_like_one = {"secret": "API"}
    bench.begin({"url": server.origin + "/echo", **arguments}, odd=looks_like_one)
    ended = await bench.end()
    (asked,) = server.asked
    assert asked.headers["authorization"] == f"Bearer {TOKEN}"
    assert json.loads(asked.body) == {"password": TOKEN, "odd": looks_like_one}
    result: Any = value(ended)
    assert result["headers"]["x-echo"] == "Bearer [secret]"
    assert result["body"]["headers"]["authorization"] == "Bearer [secret]"
    assert "key=[secret]" in result["body"]["path"]
    server.answer("/echo", 500, json.dumps({"you said": f"Bearer {TOKEN}"}))
    bench.begin({"url": server.origin + "/echo", **arguments}, odd=1)
    failed = await bench.end()
    assert isinstance(failed, Failed)
    details = json.loads(failed.failure.details.json)
    assert json.loads(details["body"]) == {"you said": "Bearer [secret]"}
    server.redirect("/echo", f"http://nobody.invalid/{TOKEN}")
    bench.begin({"url": server.origin + "/echo", **arguments, "method": "POST"}, odd=1)
    lost = await bench.end()
    for each in (ended, failed, lost):
        assert TOKEN not in str(each) and json.dumps(TOKEN)[1:-1] not in str(each)


@pytest.mark.parametrize(
    ("name", "reason"),
    [("NOBODYS", "SECRET_MISSING"), ("SHORT", "SECRET_UNUSABLE"), ("BROKEN", "INVALID_ARGUMENTS")],
)
async def test_a_secret_that_cannot_be_used_fails_for_good_and_only_its_name_is_told(
    bench: Bench, server: HttpServer, name: str, reason: str
) -> None:
    ended = await bench.call(server.origin, headers={"X": {"secret": name}})
    assert failure(ended)[:2] == (reason, False)
    assert "breaking" not in str(ended) and not server.asked


@pytest.mark.parametrize(
    ("allow", "deny", "host", "called"),
    [
        ((), ("private",), "127.0.0.1", False),
        ((), ("private",), "localhost", False),
        ((), ("127.0.0.0/8",), "[::ffff:127.0.0.1]", False),
        (("localhost",), (), "127.0.0.1", False),
        (("localhost",), (), "localhost", True),
        (("127.0.0.0/8",), (), "localhost", True),
        (("*.example.com",), (), "localhost", False),
    ],
)
async def test_hosts_are_judged_by_name_and_by_the_address_that_is_dialled(
    server: HttpServer, *, allow: tuple[str, ...], deny: tuple[str, ...], host: str, called: bool
) -> None:
    bench = Bench(HostRules(allow, deny))
    ended = await bench.call(server.origin.replace("127.0.0.1", host))
    await bench.executor.close()
    assert bool(server.asked) is called
    if not called:
        assert failure(ended)[:2] == ("HOST_DENIED", False)


async def test_an_address_in_a_disguise_is_not_called(server: HttpServer) -> None:
    bench = Bench(HostRules(deny=("private",)))
    for host in ("2130706433", "0x7f.1", "127.1"):
        ended = await bench.call(server.origin.replace("127.0.0.1", host))
        assert failure(ended)[0] in ("INVALID_ADDRESS", "HOST_DENIED"), host
        assert not failure(ended)[1]
    await bench.executor.close()
    assert not server.asked


async def test_a_redirect_is_judged_like_the_first_address(server: HttpServer) -> None:
    server.redirect("/in", "http://169.254.169.254/latest/meta-data/")
    bench = Bench(HostRules())
    ended = await bench.call(server.origin + "/in")
    await bench.executor.close()
    assert failure(ended)[:2] == ("HOST_DENIED", False)


def test_the_library_is_loaded_with_the_first_request_only() -> None:
    program = "import sys, stretto_worker.__main__; print('aiohttp' in sys.modules)"
    environ = environment()
    done = subprocess.run(
        [sys.executable, "-c", program], env=environ, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"
