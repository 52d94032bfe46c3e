"""A client's channel: how it reconnects, keeps alive, and bounds messages.

Reconnects after 50 ms at first and at most 1 s, so that a restarted service is found again at once.
gRPC's own retries are off: calls are retried in one layer, `stretto_core.rpc.retry`.
"""

from __future__ import annotations

import grpc

from stretto_core.telemetry.secret import Secret

MESSAGE_BYTES_MAX = 4 << 20
Metadata = tuple[tuple[str, str], ...]


def open_channel(target: str, *, message_bytes_max: int = MESSAGE_BYTES_MAX) -> grpc.aio.Channel:
    """Return a channel to `target` (host:port, unix:PATH); connects at the first call.

    Close it, or use it with `async with`.
    """
    return grpc.aio.insecure_channel(
        target,
        options=[
            ("grpc.enable_retries", 0),
            ("grpc.initial_reconnect_backoff_ms", 50),
            # Also how long one attempt to connect may take.
            ("grpc.min_reconnect_backoff_ms", 1_000),
            ("grpc.max_reconnect_backoff_ms", 1_000),
            ("grpc.keepalive_time_ms", 20_000),
            ("grpc.keepalive_timeout_ms", 10_000),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.max_pings_without_data", 0),
            ("grpc.max_receive_message_length", message_bytes_max),
            ("grpc.max_send_message_length", message_bytes_max),
            # A proxy from the environment has no business between our own processes.
            ("grpc.enable_http_proxy", 0),
        ],
    )


def credentials(token: Secret | None, traceparent: str = "") -> Metadata:
    """Return the call metadata that presents a token and carries a trace on."""
    bearer = () if token is None else (("authorization", f"Bearer {token.reveal()}"),)
    return bearer if not traceparent else (*bearer, ("traceparent", traceparent))
