"""Data keys in memory: the test double, with the simulator's kernels sharing one."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from stretto_core.ids import RunId

from stretto_kernel.app.run_key_store import KeyOfRun, StoredKey


class MemoryRunKeys:
    """Implements RunKeyStore."""

    def __init__(self) -> None:
        self._secrets: dict[int, bytes] = {}
        self._runs: dict[RunId, int] = {}
        self._marked: set[int] = set()
        self._newest = 0
        self.old_key_ids: set[int] = set()
        """Those that are a day old; a test says so."""

    def secret_of(self, key_id: int) -> bytes | None:
        """Return the secret of a key that is there."""
        return self._secrets.get(key_id)

    async def make(self, secrets: Mapping[RunId, bytes]) -> Mapping[RunId, StoredKey]:
        """See `RunKeyStore`."""
        for run_id, secret in secrets.items():
            if run_id not in self._runs:
                self._newest += 1
                self._runs[run_id] = self._newest
                self._secrets[self._newest] = secret
            self.old_key_ids.discard(self._runs[run_id])
        return {
            run_id: StoredKey(self._runs[run_id], self._secrets[self._runs[run_id]])
            for run_id in secrets
        }

    async def find(self, key_ids: Collection[int]) -> Mapping[int, bytes]:
        """See `RunKeyStore`."""
        return {key_id: self._secrets[key_id] for key_id in key_ids if key_id in self._secrets}

    async def mark(self, key_id: int) -> None:
        """See `RunKeyStore`."""
        if key_id in self._secrets:
            self._marked.add(key_id)

    async def marked(self) -> Sequence[KeyOfRun]:
        """See `RunKeyStore`."""
        runs = {key_id: run_id for run_id, key_id in self._runs.items()}
        return [KeyOfRun(key_id, runs[key_id]) for key_id in sorted(self._marked)]

    async def unmark(self, key_id: int) -> None:
        """See `RunKeyStore`."""
        self._marked.discard(key_id)

    async def destroy(self, key_id: int) -> None:
        """See `RunKeyStore`."""
        self._secrets.pop(key_id, None)
        self._marked.discard(key_id)
        self._runs = {run_id: known for run_id, known in self._runs.items() if known != key_id}

    async def old(self, *, after_key_id: int, count_max: int) -> Sequence[KeyOfRun]:
        """See `SweptRunKeys`."""
        found = [
            KeyOfRun(key_id, run_id)
            for run_id, key_id in sorted(self._runs.items(), key=lambda item: item[1])
            if key_id > after_key_id and key_id in self.old_key_ids - self._marked
        ]
        return found[:count_max]

    async def sweep(self, key_ids: Collection[int]) -> int:
        """See `SweptRunKeys`."""
        deleted = self.old_key_ids.intersection(key_ids) - self._marked
        for key_id in deleted:
            await self.destroy(key_id)
        self.old_key_ids -= deleted
        return len(deleted)
