"""Makes one HTTP call: dials what the rules allow, follows redirects, reads the answer in bounds.

The only importer of aiohttp, and itself imported with the first http task: the worker's start does
not pay for it. TLS certificates are always verified. No proxy is used, whatever the environment
says, no cookie kept, no .netrc read. A redirect to another scheme, host or port is followed without
the task's headers, but for those in _HARMLESS, and never with a body.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from urllib.parse import quote, urljoin, urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver
from stretto_sdk.arguments.http import Limits, address_mistake
from yarl import URL

from stretto_worker.domain.host_rules import HostRules
from stretto_worker.domain.http_request import Request
from stretto_worker.domain.http_results import Answer
from stretto_worker.http.broken_call import CallBroken

KEEPALIVE_S = 5.0
"""A connection idle for longer is not used again: the other side may be closing it just then."""
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_HARMLESS = frozenset({"accept", "accept-language", "idempotency-key", "user-agent"})
_URL_CHARACTERS = ":/?#[]@!$&'()*+,;=%~"


class HttpClient:
    """Connections of one worker process; made on the loop that uses it.

    authorities: a file of certificates trusted besides the system's.
    """

    def __init__(self, rules: HostRules, authorities: Path | None) -> None:
        self._rules = rules
        trusted = ssl.create_default_context()
        if authorities is not None:
            trusted.load_verify_locations(authorities)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=0,  # The worker's slots are the limit.
                keepalive_timeout=KEEPALIVE_S,
                ssl=trusted,
                resolver=_RuledResolver(rules),
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
        )

    async def call(self, request: Request, limits: Limits, *, reads_body: bool) -> Answer:
        """Return the last answer. Raises CallBroken; cancelling it closes the connection."""
        try:
            async with asyncio.timeout(limits.total_s):
                return await self._follow(request, limits, reads_body)
        except aiohttp.ClientConnectorDNSError as error:
            if isinstance(error.os_error, _HostDenied):
                raise CallBroken("HOST_DENIED", str(error.os_error), retryable=False) from None
            raise CallBroken("HOST_UNKNOWN", "the host's name was not found") from None
        except aiohttp.ClientConnectorCertificateError as error:
            why = f"the certificate was refused: {error.certificate_error}"
            raise CallBroken("TLS_REFUSED", why, retryable=False) from None
        except aiohttp.InvalidURL:
            why = "the address cannot be called"
            raise CallBroken("INVALID_ADDRESS", why, retryable=False) from None
        except TimeoutError as error:
            what = "connection" if isinstance(error, aiohttp.ConnectionTimeoutError) else "answer"
            raise CallBroken("HTTP_TIMEOUT", f"no {what} in time") from None
        except aiohttp.ClientConnectorError as error:
            raise CallBroken("NOT_CONNECTED", _no_connection(error)) from None
        except (aiohttp.ClientError, OSError) as error:
            raise CallBroken("CONNECTION_LOST", _reason_of(error)) from None
        except ValueError as error:
            raise CallBroken("INVALID_RESPONSE", str(error), retryable=False) from None

    async def close(self) -> None:
        """Close every connection."""
        await self._session.close()

    async def _follow(self, request: Request, limits: Limits, reads_body: bool) -> Answer:
        url, method, headers, body = request.url, request.method, request.headers, request.body
        for _ in range(limits.redirects_max + 1):
            self._check(url)
            async with self._send(method, url, headers, body, limits=limits) as response:
                location = response.headers.get("location")
                if (
                    response.status not in _REDIRECTS
                    or location is None
                    or not limits.redirects_max
                ):
                    return await _answer(response, limits, reads_body)
                status = response.status
            target = _target(url, location)
            if (status == 303 and method != "HEAD") or (status in (301, 302) and method == "POST"):
                method, body = "GET", None
                headers = _without(headers, "content-type")
            if URL(target).origin() != URL(url).origin():
                if body is not None:
                    why = "it would take the body to another host"
                    raise CallBroken("REDIRECT_REFUSED", why, retryable=False)
                headers = {
                    name: text for name, text in headers.items() if name.lower() in _HARMLESS
                }
            url = target
        why = f"more than {limits.redirects_max} redirects"
        raise CallBroken("TOO_MANY_REDIRECTS", why, retryable=False)

    def _send(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes | None,
        *,
        limits: Limits,
    ) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        return self._session.request(
            method,
            URL(url, encoded=True),
            headers=headers,
            data=body,
            allow_redirects=False,
            timeout=aiohttp.ClientTimeout(
                total=None,
                connect=limits.connect_s,
                sock_connect=limits.connect_s,
                sock_read=limits.read_s,
            ),
        )

    def _check(self, url: str) -> None:
        """Refuse an address written as a number, which no resolver sees."""
        host = urlsplit(url).hostname or ""
        try:
            allowed = self._rules.allows(host, host)
        except ValueError:
            return  # A name: judged with the address it is found at, when that is dialled.
        if not allowed:
            raise CallBroken("HOST_DENIED", _denied(host), retryable=False)


class _HostDenied(OSError):
    """A name whose every address is denied."""


class _RuledResolver(AbstractResolver):
    """Finds addresses and drops those that may not be called.

    What is dialled is what was judged: a name that changes its address in between gains nothing.
    """

    def __init__(self, rules: HostRules) -> None:
        self._rules = rules
        self._names = ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await self._names.resolve(host, port, family)
        allowed = [each for each in found if self._rules.allows(host, each["host"])]
        if not allowed:
            raise _HostDenied(_denied(host))
        return allowed

    async def close(self) -> None:
        await self._names.close()


async def _answer(response: aiohttp.ClientResponse, limits: Limits, reads_body: bool) -> Answer:
    bytes_max = limits.response_bytes_max
    body = bytearray()
    # The length that a HEAD tells is that of a body which does not come.
    if (reads_body or response.status >= 300) and response.method != "HEAD":
        if (response.content_length or 0) > bytes_max:
            raise _too_large(bytes_max)
        async for chunk in response.content.iter_any():
            body += chunk
            if len(body) > bytes_max:
                raise _too_large(bytes_max)
    headers = {name.lower(): text for name, text in response.headers.items()}
    return Answer(response.status, headers, bytes(body))


def _too_large(bytes_max: int) -> CallBroken:
    why = f"the answer has more than {bytes_max} bytes"
    return CallBroken("RESPONSE_TOO_LARGE", why, retryable=False)


def _target(url: str, location: str) -> str:
    target = urljoin(url, quote(location, safe=_URL_CHARACTERS))
    wrong = address_mistake(target)
    if wrong:
        raise CallBroken("REDIRECT_REFUSED", f"its target {wrong}", retryable=False)
    return urlsplit(target)._replace(fragment="").geturl()


def _without(headers: Mapping[str, str], left_out: str) -> dict[str, str]:
    return {name: text for name, text in headers.items() if name.lower() != left_out}


def _denied(host: str) -> str:
    return f"this worker may not call {host}"


def _reason_of(error: Exception) -> str:
    return str(error) or type(error).__name__


def _no_connection(error: aiohttp.ClientConnectorError) -> str:
    """Return why; the error's own text speaks of TLS whether there is any, and of itself."""
    cause = error.os_error
    if cause.errno is None or isinstance(cause, ssl.SSLError):  # Whose numbers are its own.
        return _reason_of(error)
    return f"{error.host}:{error.port}: {os.strerror(cause.errno)}"
