"""How a command reaches the suite it is about: a client for one question, or the data directory."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

from stretto_core.errors import Unavailable
from stretto_sdk.endpoint import NoEndpoint

from stretto_cli.printing import err
from stretto_cli.settings import Settings

if TYPE_CHECKING:
    from stretto_sdk.client import Client

    from stretto_cli.suite.directory import SuiteDirectory

Answer = TypeVar("Answer")

PATIENCE_S = 1.5
"""After so long without a connection a person is told what the command waits for."""
RETRY_BUDGET = timedelta(seconds=15)
"""How long a command waits for a suite that is restarting before it calls it unreachable."""
RESTART_BUDGET = timedelta(seconds=60)
"""How long one that follows waits for a kernel that is gone before it gives up."""
_TRANSPORT = re.compile(r"(?:failed to connect|errors resolving).*: ([^:\]]+)\]?", re.DOTALL)
"""How gRPC tells that there is no connection; a person needs the last of it only."""


@dataclass(frozen=True, slots=True)
class Suite:
    """The suite that a command asks, wherever it runs."""

    settings: Settings

    def ask(
        self,
        use: Callable[[Client], Awaitable[Answer]],
        *,
        retry_budget: timedelta = RETRY_BUDGET,
    ) -> Answer:
        """Return what `use(client)` returns; the client is closed after it.

        Raises NoEndpoint at once when no suite runs in the data directory, Unavailable with the
        address when it does not answer.
        """
        from stretto_sdk.client import Client  # noqa: PLC0415 - gRPC: only when something is asked

        settings = self.settings
        address = settings.address.value
        if not address:
            raise NoEndpoint(
                f"no suite runs in {settings.data_dir.value}: start one with `stretto up`, or "
                "name one with --data-dir or --address",
                data_directory=settings.data_dir.value,
            )

        def tell(client: Client) -> None:
            if not client.is_connected:
                budget_s = retry_budget.total_seconds()
                err.print(f"stretto: no suite answers at {address} yet; waiting {budget_s:.0f} s")

        async def connected() -> Answer:
            async with Client(
                address,
                None if settings.secret is None else settings.secret.reveal(),
                namespace=settings.namespace.value,
                retry_budget=retry_budget,
            ) as client:
                telling = asyncio.get_running_loop().call_later(PATIENCE_S, tell, client)
                try:
                    return await use(client)
                finally:
                    telling.cancel()

        try:
            return asyncio.run(connected())
        except Unavailable as error:
            cause = _TRANSPORT.fullmatch(error.message)
            why = cause[1] if cause else error.message
            raise Unavailable(f"no suite answers at {address}: {why}", address=address) from None


@dataclass(frozen=True, slots=True)
class LocalSuite:
    """The suite whose processes run, or shall run, on this machine."""

    settings: Settings

    @property
    def directory(self) -> SuiteDirectory:
        """Its data directory."""
        return self.settings.directory
