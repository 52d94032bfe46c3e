"""An embedded PostgreSQL of one's own, fsync on: started for one measurement and gone after it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from stretto_core.localstack.postgres import FAST, EmbeddedPostgres


@asynccontextmanager
async def fresh_postgres() -> AsyncIterator[str]:
    """Yield its connection string; nothing of it remains."""
    directory = Path(tempfile.mkdtemp(prefix="stretto-bench-"))
    directory.chmod(0o711)  # The account that PostgreSQL runs as passes through it.
    server = EmbeddedPostgres(directory=directory)
    try:
        await server.start()
        yield server.dsn()
    finally:
        await server.stop(FAST)
        shutil.rmtree(directory, ignore_errors=True)
