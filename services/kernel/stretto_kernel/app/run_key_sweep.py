"""The sweep of data keys: deletes those of runs that were never started.

A key is made before its run's first fact, so a start that fails leaves one that encrypted no fact.
A start asks for its key, and is appended within moments or never: a key that none asked for within
a day, and whose run is not in the log now, is of no run. A start that comes while the sweep looks
asks for the key again, and the deletion then changes nothing; or it comes after the deletion and
gets a new one. With a key go the copies of blobs' keys that its start was given, which would open
those blobs for ever. Each key is looked at once a day: one that was too young then, because a start
asked for it again, has its turn.
"""

from __future__ import annotations

import structlog
from stretto_core.eventlog.port import EventLog
from stretto_core.ids import StreamId, partition_of

from stretto_kernel.app.run_key_store import SweptRunKeys

PAGE_KEYS = 500
SWEEPS_A_PASS = 24
"""They come every hour."""


class RunKeySweep:
    """Sweeps the keys of one partition's runs."""

    def __init__(self, keys: SweptRunKeys, log: EventLog) -> None:
        self._keys = keys
        self._log = log
        self._last_key_id = 0
        self._sweeps_left = SWEEPS_A_PASS
        self._logger = structlog.get_logger("stretto.kernel.keys")

    async def sweep(self) -> int:
        """Delete what may go, and return how many keys that were. Raises Unavailable."""
        deleted_count = 0
        if not self._sweeps_left:
            self._last_key_id, self._sweeps_left = 0, SWEEPS_A_PASS
        while True:
            page = await self._keys.old(after_key_id=self._last_key_id, count_max=PAGE_KEYS)
            if not page:
                break
            ours = {
                StreamId(run_id): key_id
                for key_id, run_id in page
                if partition_of(run_id) == self._log.partition
            }
            started = await self._log.existing_streams(list(ours))
            if unused := [key_id for stream, key_id in ours.items() if stream not in started]:
                deleted_count += await self._keys.sweep(unused)
            self._last_key_id = page[-1].key_id
        self._sweeps_left -= 1
        if deleted_count:
            self._logger.info("keys.swept", deleted_count=deleted_count)
        return deleted_count
