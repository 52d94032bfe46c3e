"""The data keys in use: made for new runs, found for old ones, forgotten when they are destroyed.

Keeps the newest few thousand in memory; what is destroyed leaves it first. Another process destroys
keys only once it owns the partition, and the one before may not know yet: it decrypts an answer by
what it remembers only after a commit or probe that began after it was asked. Knows no table.
"""

from __future__ import annotations

import asyncio
import math
import secrets
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Sequence

from google.protobuf.message import Message
from stretto_core.errors import FailedPrecondition, Refusal
from stretto_core.ids import Namespace, RunId

from stretto_kernel.app.confidential import key_ids_in, revealing
from stretto_kernel.app.data_key import SECRET_BYTES, DataKey, RandomBytes
from stretto_kernel.app.in_parts import in_parts
from stretto_kernel.app.run_key_store import KeyOfRun, RunKeyStore, StoredKey

KEYS_MAX = 4_096
MADE_AT_ONCE_MAX = 500

ProveOwnership = Callable[[], Awaitable[None]]
"""Returns once the partition was owned at a moment after the call; raises when it is not."""


class RunKeyMissing(FailedPrecondition):
    """The run was not shredded and its key is not there: the database lost it. Restore it."""

    reason = "RUN_KEY_MISSING"


class RunKeys:
    """The keys of one kernel process, in memory for as long as it alone destroys any.

    random_bytes: where secrets and nonces come from; a simulator brings its own.
    """

    def __init__(
        self,
        store: RunKeyStore,
        *,
        random_bytes: RandomBytes = secrets.token_bytes,
        keys_max: int = KEYS_MAX,
    ) -> None:
        self.store = store
        self.random_bytes = random_bytes
        self._keys_max = keys_max
        self._keys: OrderedDict[int, DataKey] = OrderedDict()
        self._keeping: object | None = object()
        """Another one whenever keys are kept again; None = they are not."""
        self._prove: ProveOwnership | None = None
        self._destroyed: dict[int, float] = {}
        self._reads: dict[int, None] = {}
        self._reads_begun = 0
        self._asked: dict[RunId, asyncio.Future[DataKey]] = {}
        self._making: asyncio.Task[None] | None = None
        self.made_count = 0
        self.destroyed_count = 0

    def keep(self, prove: ProveOwnership) -> None:
        """Keep keys in memory from now on: while the partition is owned, only this destroys any."""
        self._keeping = object()
        self._prove = prove

    def let_go(self) -> None:
        """Keep no key: another process may destroy it, and this one would go on decrypting."""
        self._keeping = self._prove = None
        self._keys.clear()

    async def make(self, run_id: RunId) -> DataKey:
        """Return the key of a run that is about to start; on disk. Raises Unavailable.

        All who ask at once are served by one statement.
        """
        future = self._asked.get(run_id)
        if future is None:
            future = self._asked[run_id] = asyncio.get_running_loop().create_future()
            if self._making is None:
                self._making = asyncio.create_task(self._make(), name="run-keys")
        return await asyncio.shield(future)

    async def find(self, key_id: int) -> DataKey | None:
        """Return a key, None when it was destroyed. Raises Unavailable."""
        return (await self._load([key_id])).get(key_id)

    async def reveal(self, messages: Sequence[Message]) -> None:
        """Decrypt, in place, what the messages hold encrypted; mark what was shredded.

        What anybody shredded before this call is not decrypted. Raises Unavailable.
        """
        key_ids = key_ids_in(messages)
        if not key_ids.isdisjoint(self._keys):
            await self._prove_or_let_go()
        keys = await self._load(key_ids)
        for message in messages:
            await in_parts(revealing(message, keys.get))

    async def _prove_or_let_go(self) -> None:
        prove = self._prove
        if prove is None:
            return
        try:
            await prove()
        except Refusal:
            if prove is self._prove:  # Else it is owned again, or known already that it is not.
                self.let_go()

    async def mark(self, key_id: int) -> None:
        """Note that the key is about to be destroyed, in case this process dies before."""
        await self.store.mark(key_id)

    async def marked(self) -> Sequence[KeyOfRun]:
        """Return what was marked and may still have to be destroyed."""
        return await self.store.marked()

    async def unmark(self, key_id: int) -> None:
        """The run was not shredded after all."""
        await self.store.unmark(key_id)

    async def destroy(self, key_id: int) -> None:
        """Destroy the key for good. Idempotent. Raises Unavailable: call again."""
        # Whoever is just reading it does not bring it back.
        self._destroyed[key_id] = math.inf
        self._keys.pop(key_id, None)
        await self.store.destroy(key_id)
        self._destroyed[key_id] = self._reads_begun
        self._forget_destroyed()
        self.destroyed_count += 1

    async def _make(self) -> None:
        try:
            while self._asked:
                batch = dict(list(self._asked.items())[:MADE_AT_ONCE_MAX])
                for run_id in batch:
                    del self._asked[run_id]
                await self._make_batch(batch)
        finally:
            self._making = None

    async def _make_batch(self, batch: dict[RunId, asyncio.Future[DataKey]]) -> None:
        secrets_of = {run_id: self.random_bytes(SECRET_BYTES) for run_id in batch}
        keeping = self._keeping
        try:
            made = await self.store.make(secrets_of)
        except Exception as error:  # Each asker gets the store's refusal; the next batch may pass.
            for future in batch.values():
                future.set_exception(error)
                future.exception()
            return
        self.made_count += len(batch)
        for run_id, future in batch.items():
            future.set_result(self._key_of(made[run_id], keeping))

    async def _load(self, key_ids: Iterable[int]) -> dict[int, DataKey]:
        """Return those of the keys that were not destroyed.

        Held by the caller alone: what is found now may push the others out of memory.
        """
        keys: dict[int, DataKey] = {}
        absent: list[int] = []
        for key_id in key_ids:
            if (key := self._keys.get(key_id)) is None:
                absent.append(key_id)
            else:
                keys[key_id] = key
        if not absent:
            return keys
        keeping = self._keeping
        self._reads_begun += 1
        number = self._reads_begun
        self._reads[number] = None
        try:
            found = await self.store.find(absent)
            for key_id in found.keys() - self._destroyed.keys():
                keys[key_id] = self._key_of(StoredKey(key_id, found[key_id]), keeping)
            for key_id in self._destroyed.keys() & keys.keys():
                del keys[key_id]  # While this read.
        finally:
            del self._reads[number]
            self._forget_destroyed()
        return keys

    def _forget_destroyed(self) -> None:
        """Forget what was destroyed before the oldest read began that is under way."""
        if not self._destroyed:
            return
        oldest = next(iter(self._reads), math.inf)
        for key_id, read_count in list(self._destroyed.items()):
            if read_count < oldest and read_count < math.inf:
                del self._destroyed[key_id]

    def _key_of(self, stored: StoredKey, keeping: object | None) -> DataKey:
        """Return the key, kept if that was so since it was asked for."""
        key = self._keys.get(stored.key_id)
        if key is None:
            key = DataKey(stored.key_id, stored.secret, self.random_bytes)
            if keeping is None or keeping is not self._keeping:
                return key
            self._keys[stored.key_id] = key
            if len(self._keys) > self._keys_max:
                self._keys.popitem(last=False)
        return key


class StartKeys:
    """The keys of runs that are about to start, in the namespaces that ask for them."""

    def __init__(self, keys: RunKeys, encrypts: Callable[[Namespace], bool]) -> None:
        self._keys = keys
        self.encrypts = encrypts

    async def make(self, namespace: Namespace, run_id: RunId) -> DataKey | None:
        """Return the run's key; None where none is asked for. Raises Unavailable."""
        return await self._keys.make(run_id) if self.encrypts(namespace) else None
