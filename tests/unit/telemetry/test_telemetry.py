"""Logs that show nothing private, metrics as Prometheus reads them, trace context."""

from __future__ import annotations

import asyncio
import io
import json
import pickle
from collections.abc import Iterator

import pytest
import structlog
from stretto.common.v1.lease_pb2 import LeaseToken
from stretto_core.telemetry.exposition import render, serve_metrics
from stretto_core.telemetry.logs import configure_logs
from stretto_core.telemetry.metrics import Registry
from stretto_core.telemetry.secret import Secret
from stretto_core.telemetry.trace import TraceParent, parse_traceparent

VALID = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.fixture
def log_lines() -> Iterator[io.StringIO]:
    stream = io.StringIO()
    yield stream
    structlog.reset_defaults()


def test_a_line_is_json_with_its_service(log_lines: io.StringIO) -> None:
    configure_logs(service="kernel", stream=log_lines)
    structlog.get_logger().info("attempt.leased", epoch=3)
    line = json.loads(log_lines.getvalue())
    assert {key: line[key] for key in ("event", "epoch", "service", "level")} == {
        "event": "attempt.leased",
        "epoch": 3,
        "service": "kernel",
        "level": "info",
    }


def test_nothing_private_is_shown(log_lines: io.StringIO) -> None:
    configure_logs(service="kernel", stream=log_lines)
    token = LeaseToken(secret=b"hidden")
    structlog.get_logger().info("x", a=Secret("hidden"), b=b"hidden", c=token, d="y" * 10_000)
    assert "hidden" not in log_lines.getvalue()
    line = json.loads(log_lines.getvalue())
    assert (line["b"], line["c"]) == ("<6 bytes>", "<LeaseToken>")
    assert len(line["d"]) < 3_000


@pytest.mark.parametrize("as_json", [True, False])
def test_a_traceback_shows_no_local_variable(log_lines: io.StringIO, as_json: bool) -> None:
    configure_logs(service="kernel", stream=log_lines, json=as_json)
    payload = "-".join(["hid", "den"])
    try:
        raise KeyError(len(payload))
    except KeyError:
        structlog.get_logger().error("rpc.failed", exc_info=True)
    assert "KeyError" in log_lines.getvalue()
    assert payload not in log_lines.getvalue()


def test_the_level_is_a_floor_and_a_wrong_one_is_refused(log_lines: io.StringIO) -> None:
    configure_logs(service="kernel", level="warning", stream=log_lines)
    structlog.get_logger().info("x")
    assert log_lines.getvalue() == ""
    with pytest.raises(ValueError, match="loud"):
        configure_logs(service="kernel", level="loud")


def test_a_secret_shows_nothing_however_it_is_printed() -> None:
    secret = Secret("hidden")
    shown = [repr(secret), str(secret), f"{secret}", f"{secret!r}", repr([secret])]
    assert not any("hidden" in text for text in shown)
    with pytest.raises(TypeError):
        pickle.dumps(secret)
    assert secret == Secret("hidden")
    assert secret != Secret("other")
    assert secret.reveal() == "hidden"


def test_metrics_read_as_prometheus_expects() -> None:
    registry = Registry()
    registry.counter("calls_total", "Calls.", rpc='a"b\\c\n').add(3)
    registry.gauge("queue_length", "Now.", read=lambda: 7)
    histogram = registry.histogram("wait_seconds", "Waits.")
    for value in (0.001, 0.3, 99.0):
        histogram.observe(value)
    text = render(registry)
    assert '# TYPE calls_total counter\ncalls_total{rpc="a\\"b\\\\c\\n"} 3\n' in text
    assert "# HELP queue_length Now.\n# TYPE queue_length gauge\nqueue_length 7\n" in text
    assert 'wait_seconds_bucket{le="0.001"} 1\n' in text
    assert 'wait_seconds_bucket{le="0.5"} 2\n' in text
    assert 'wait_seconds_bucket{le="+Inf"} 3\n' in text
    assert "wait_seconds_count 3\n" in text


def test_the_same_name_and_labels_are_the_same_metric() -> None:
    registry = Registry()
    registry.counter("calls_total", "Calls.", rpc="a").add()
    assert registry.counter("calls_total", "Calls.", rpc="a").value == 1
    assert registry.counter("calls_total", "Calls.", rpc="b").value == 0


async def test_metrics_are_served_over_http() -> None:
    registry = Registry()
    registry.counter("calls_total", "Calls.").add()
    server = await serve_metrics(registry, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    ok = await _get(port, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
    assert ok.startswith(b"HTTP/1.1 200 OK\r\n")
    assert ok.endswith(b"calls_total 1\n")
    assert (await _get(port, b"GET / HTTP/1.1\r\n\r\n")).startswith(b"HTTP/1.1 404")
    assert await _get(port, b"x" * 20_000) == b""
    server.close()


async def _get(port: int, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    try:
        return await reader.read()
    except ConnectionResetError:
        return b""
    finally:
        writer.close()


def test_a_traceparent_is_carried_on() -> None:
    parsed = parse_traceparent(VALID)
    assert parsed == TraceParent("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7", 1)
    assert str(parsed) == VALID
    assert str(parsed.child("1" * 16)) == VALID.replace("00f067aa0ba902b7", "1" * 16)
    assert parse_traceparent(VALID.replace("00-", "cc-", 1) + "-later") is not None


@pytest.mark.parametrize(
    "text",
    [
        "",
        VALID + "-more",
        VALID.upper(),
        VALID[:-1],
        VALID.replace("00-", "ff-", 1),
        "00-" + "0" * 32 + "-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-" + "0" * 16 + "-01",
        VALID.replace("4", "\u0664"),
    ],
)
def test_what_is_no_traceparent_is_ignored(text: str) -> None:
    assert parse_traceparent(text) is None
