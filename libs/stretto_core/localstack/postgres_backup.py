"""Copies a running embedded PostgreSQL, whole and consistent, without stopping it.

The copy is a cluster: a server started in it goes on from the instant the copy ended. It appears
under its name once it is complete and on disk; what an interruption leaves has another name.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from stretto_core.localstack.account import make_enterable
from stretto_core.localstack.postgres import EmbeddedPostgres


class BackupFailed(Exception):
    """PostgreSQL could not be copied; the message holds what its own program said."""


def copy_cluster(running: EmbeddedPostgres, target: EmbeddedPostgres) -> None:
    """Make `target`, which must not exist, a copy of a cluster that runs.

    Raises BackupFailed, PostgresMissing, OSError.
    """
    program = running.child_spec().argv[0]
    copy = Path(program).with_name("pg_basebackup")
    make_enterable(target.directory)
    partial = target.data_directory.with_name("data.partial")
    shutil.rmtree(partial, ignore_errors=True)
    done = subprocess.run(
        [
            *(str(copy), "--pgdata", str(partial), "--dbname", running.dsn()),
            # What is written meanwhile comes with it; it begins at once; it ends on disk.
            *("--wal-method", "stream", "--checkpoint", "fast"),
        ],
        env={"PATH": os.defpath, "LC_ALL": "C"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        shutil.rmtree(partial, ignore_errors=True)
        raise BackupFailed(done.stderr.strip() or f"pg_basebackup ended with {done.returncode}")
    if target.account is not None:
        for path in (partial, *partial.rglob("*")):
            os.chown(path, target.account.uid, target.account.gid)
    partial.rename(target.data_directory)
