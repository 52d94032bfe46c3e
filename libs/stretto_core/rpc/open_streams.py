"""Streams under way, by the token that opened them: one whose token was removed is ended.

A stream is admitted once and may live for an hour. While any is open, all their tokens are looked
up again every REVOKED_MS_MAX; that is how long a removed token still counts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from stretto_core.rpc.identity import Tokens, TokenUnknown, bearer

REVOKED_MS_MAX = 2_000


class OpenStreams:
    """The streams of one server."""

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens
        self._open: dict[asyncio.Task[Any], str] = {}
        self._revoked: set[asyncio.Task[Any]] = set()
        self._armed = False

    @contextmanager
    def until_revoked(self, authorization: str | None) -> Iterator[None]:
        """End the running task's body with TokenUnknown once its token is not known any more.

        authorization: the header that admitted it; None (anonymous) is never revoked.
        """
        task = asyncio.current_task()
        if authorization is None or task is None:
            yield
            return
        self._open[task] = authorization
        self._arm()
        try:
            yield
        except asyncio.CancelledError:
            if task not in self._revoked:
                raise
            task.uncancel()
            raise TokenUnknown("the token of this stream was removed") from None
        finally:
            del self._open[task]
            self._revoked.discard(task)

    def _arm(self) -> None:
        if not self._armed:
            self._armed = True
            asyncio.get_running_loop().call_later(REVOKED_MS_MAX / 1_000, self._look)

    def _look(self) -> None:
        self._armed = False
        for task, authorization in self._open.items():
            try:
                bearer(authorization, self._tokens)
            except TokenUnknown:
                if task not in self._revoked:
                    self._revoked.add(task)
                    task.cancel()
        if self._open:
            self._arm()
