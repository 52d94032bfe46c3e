"""Folds runs from the committed log with the kernel's own `evolve`, at any version asked for."""

from __future__ import annotations

from collections.abc import Iterable

from stretto.run.v1 import run_pb2
from stretto_core.eventlog.codec import Codec
from stretto_core.eventlog.memory import MemoryStore
from stretto_core.ids import Namespace, RunId, StreamId
from stretto_kernel.adapters.memory_run_keys import MemoryRunKeys
from stretto_kernel.app.confidential import decrypt
from stretto_kernel.app.data_key import DataKey
from stretto_kernel.domain.run import RunState, evolve, new_run
from stretto_kernel.domain.run.resource import to_run, to_task

from tests.simulation.laws import EVENT_TYPES


class LogFold:
    """Folds of a store's runs; each is kept and goes on from where it is.

    keys: what encrypted ones are decrypted with; without, they are folded as they lie.
    """

    def __init__(self, store: MemoryStore, keys: MemoryRunKeys | None = None) -> None:
        self._store = store
        self._keys = keys or MemoryRunKeys()
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
        return to_run(state, state.time_ns)


def picture(state: RunState, now_ns: int) -> tuple[bytes, ...]:
    """Return everything that is shown of a run and its tasks, to compare two folds of it."""
    shown: Iterable[run_pb2.Run | run_pb2.Task] = (
        to_run(state, now_ns),
        *(to_task(state, task, now_ns) for task in state.tasks),
    )
    return tuple(each.SerializeToString(deterministic=True) for each in shown)
