"""Metrics in the Prometheus text format (version 0.0.4), and a small HTTP answer with them.

Loaded only where a metrics port is asked for. One answer per connection: a scrape every few seconds
needs no more, and nothing else is served.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from itertools import accumulate

from stretto_core.telemetry.metrics import Counter, Family, Gauge, Histogram, Labels, Registry

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_REQUEST_BYTES_MAX = 8 << 10
_REQUEST_TIMEOUT_S = 5.0
_KIND = {Counter: "counter", Gauge: "gauge", Histogram: "histogram"}


def render(registry: Registry) -> str:
    """Return every metric of the registry as Prometheus reads it."""
    return "".join(f"{line}\n" for family in registry.families() for line in _lines(family))


async def serve_metrics(registry: Registry, host: str, port: int) -> asyncio.Server:
    """Answer GET /metrics at the address (port 0: any free one); close the server to end it."""

    none_asked = (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(*none_asked):
            async with asyncio.timeout(_REQUEST_TIMEOUT_S):
                head = await reader.readuntil(b"\r\n")
                while await reader.readuntil(b"\r\n") != b"\r\n":
                    pass
                found = head.split(b" ")[:2] == [b"GET", b"/metrics"]
                writer.write(_response(render(registry) if found else None))
                await writer.drain()
        writer.close()

    return await asyncio.start_server(answer, host, port, limit=_REQUEST_BYTES_MAX)


def _response(text: str | None) -> bytes:
    status = "404 Not Found" if text is None else "200 OK"
    body = (text or "GET /metrics\n").encode()
    head = f"HTTP/1.1 {status}\r\nContent-Type: {CONTENT_TYPE}\r\nContent-Length: {len(body)}\r\n"
    return head.encode() + b"Connection: close\r\n\r\n" + body


def _lines(family: Family) -> Iterator[str]:
    yield f"# HELP {family.name} {_escape(family.help)}"
    yield f"# TYPE {family.name} {_KIND[family.kind]}"
    for labels, metric in sorted(family.by_labels.items(), key=lambda entry: entry[0]):
        if isinstance(metric, Histogram):
            yield from _histogram(family.name, labels, metric)
        else:
            value = metric.value if isinstance(metric, Counter) else metric.current()
            yield f"{family.name}{_labels(labels)} {value:.17g}"


def _histogram(name: str, labels: Labels, metric: Histogram) -> Iterator[str]:
    bounds = [f"{bound:.17g}" for bound in metric.bounds] + ["+Inf"]
    for bound, count in zip(bounds, accumulate(metric.counts), strict=True):
        yield f"{name}_bucket{_labels((*labels, ('le', bound)))} {count}"
    yield f"{name}_sum{_labels(labels)} {metric.sum:.17g}"
    yield f"{name}_count{_labels(labels)} {sum(metric.counts)}"


def _labels(labels: Labels) -> str:
    if not labels:
        return ""
    pairs = ",".join(f'{key}="{_escape(value, quotes=True)}"' for key, value in labels)
    return f"{{{pairs}}}"


def _escape(text: str, *, quotes: bool = False) -> str:
    escaped = text.replace("\\", "\\\\").replace("\n", "\\n")
    return escaped.replace('"', '\\"') if quotes else escaped
