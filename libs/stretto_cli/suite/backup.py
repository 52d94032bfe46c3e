"""A backup of a suite: a data directory of its own, from which `up` goes on."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from stretto_core.errors import FailedPrecondition, InvalidArgument, Unavailable
from stretto_core.localstack.postgres import EmbeddedPostgres
from stretto_core.localstack.postgres_backup import BackupFailed, copy_cluster
from stretto_sdk.endpoint import NoEndpoint

from stretto_cli.suite.directory import SuiteDirectory


class NotEmbedded(FailedPrecondition):
    """The record is in a PostgreSQL that is not ours to copy."""

    reason = "NOT_EMBEDDED"


@dataclass(frozen=True, slots=True)
class Backup:
    """What was made. size_bytes: of the copied record."""

    directory: str
    size_bytes: int


def back_up(directory: SuiteDirectory, target: Path) -> Backup:
    """Copy the record and the tokens of a running suite into `target`, new or empty.

    Raises NoEndpoint (none runs), NotEmbedded, InvalidArgument (target holds something),
    Unavailable (PostgreSQL does not answer), OSError.
    """
    if directory.running() is None:
        raise NoEndpoint(
            f"no suite runs in {directory.root}: what is there can be copied as it is",
            data_directory=str(directory.root),
        )
    status = directory.status()
    if status is None or all(child.name != "postgres" for child in status.children):
        raise NotEmbedded("the record is in a PostgreSQL of your own: use its own means")
    copied = SuiteDirectory(target.absolute())
    if copied.root.exists() and any(copied.root.iterdir()):
        raise InvalidArgument(f"{copied.root} is not empty: a backup takes a directory of its own")
    copied.make()
    cluster = EmbeddedPostgres(directory=copied.postgres_path)
    try:
        copy_cluster(EmbeddedPostgres(directory=directory.postgres_path), cluster)
    except BackupFailed as failed:
        raise Unavailable(f"the record could not be copied: {failed}") from None
    shutil.copytree(directory.tokens_path, copied.tokens_path)  # With their modes.
    files = [path for path in cluster.data_directory.rglob("*") if path.is_file()]
    return Backup(str(copied.root), sum(path.stat().st_size for path in files))
