"""Folds runs from the committed log with the kernel's own `evolve`, at any version asked for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from stretto.run.v1 import run_pb2
from stretto_core.eventlog.codec import Codec
from stretto_core.eventlog.memory import MemoryStore
from stretto_core.ids import Namespace, RunId, StreamId
from stretto_kernel.adapters.memory_run_keys import MemoryRunKeys
from stretto_kernel.app.confidential import decrypt, reveal
from stretto_kernel.app.data_key import DataKey
from stretto_kernel.app.run_key_store import StoredKey
from stretto_kernel.domain.run import RunState, evolve, new_run
from stretto_kernel.domain.run.resource import to_run, to_task

from tests.simulation.laws import EVENT_TYPES


class KeptKeys(MemoryRunKeys):
    """Forgets as it is told; the laws have a copy of every key, as somebody with a backup would."""

    def __init__(self) -> None:
        super().__init__()
        self._copies: dict[int, bytes] = {}

    async def make(self, secrets: Mapping[RunId, bytes]) -> Mapping[RunId, StoredKey]:
        """See `RunKeyStore`."""
        made = await super().make(secrets)
        self._copies.update((each.key_id, each.secret) for each in made.values())
        return made

    def secret_of(self, key_id: int) -> bytes | None:
        """Return the secret of a key that ever was."""
        return self._copies.get(key_id)

    def is_forgotten(self, key_id: int) -> bool:
        """Whether no kernel can open anything with the key any more."""
        return super().secret_of(key_id) is None


class LogFold:
    """Folds of a store's runs; each is kept and goes on from where it is.

    keys: what encrypted ones are decrypted with; without, they are folded as they lie.
    """

    def __init__(self, store: MemoryStore, keys: KeptKeys | None = None) -> None:
        self._store = store
        self._keys = keys or KeptKeys()
        self.is_forgotten = self._keys.is_forgotten
        self._codec = Codec(EVENT_TYPES.values())
        self._folded: dict[str, RunState] = {}

    def at(self, run_id: str, version: int) -> RunState:
        """Return the run folded up to `version`; valid until the next call."""
        state = self._folded.get(run_id)
        events = self._store.stream_events(StreamId(run_id))
        if state is None or state.version > version:
            namespace = self._codec.decode(events[0].stored_bytes).envelope.namespace
            state = self._folded[run_id] = new_run(RunId(run_id), Namespace(namespace))
        for stored in events[state.version : version]:
            recorded = self._codec.decode(stored.stored_bytes).recorded
            if (secret := self._keys.secret_of(recorded.key_id)) is not None:
                decrypt(recorded.event, DataKey(recorded.key_id, secret, bytes))
            evolve(state, recorded)
        return state

    def shown(self, run_id: str, version: int) -> run_pb2.Run:
        """Return the run as it must be shown at `version`."""
        state = self.at(run_id, version)
        if state.shredding is None:
            return to_run(state, state.time_ns)
        shown = to_run(self.held(run_id, version), state.time_ns)
        reveal(shown, lambda _: None)
        return shown

    def held(self, run_id: str, version: int) -> RunState:
        """Return the run as a kernel has it in memory: a shredded one as it lies."""
        state = self.at(run_id, version)
        return state if state.shredding is None else LogFold(self._store).at(run_id, version)


def picture(state: RunState, now_ns: int) -> tuple[bytes, ...]:
    """Return everything that is shown of a run and its tasks, to compare two folds of it."""
    shown: Iterable[run_pb2.Run | run_pb2.Task] = (
        to_run(state, now_ns),
        *(to_task(state, task, now_ns) for task in state.tasks),
    )
    return tuple(each.SerializeToString(deterministic=True) for each in shown)
