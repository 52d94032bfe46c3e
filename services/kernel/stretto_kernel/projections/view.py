"""What a view is: a pure fold from what one event changed to the rows that changed with it.

A module of this package has one view each; `registry` lists them. Every run is folded once, with
the kernel's own `evolve`, however many views follow; each is handed the same `Step`. Rows are named
tuples whose first fields are the key, and whose fields are the parameters of the view's SQL.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from google.protobuf.message import Message
from stretto.common.v1.principal_pb2 import Principal
from stretto.eventlog.v1.recorded_event_pb2 import RecordedEvent
from stretto_core.eventlog.chain import GENESIS
from stretto_core.eventlog.codec import Codec
from stretto_core.eventlog.recorded import Recorded
from stretto_core.ids import TaskName

from stretto_kernel.domain.run import RunState, Touched
from stretto_kernel.domain.run.resource import task_as_planned
from stretto_kernel.domain.run.task import Phase, TaskRecord

Row = tuple[Any, ...]
"""A row of a view; each view has a NamedTuple of its own."""
Key = tuple[Any, ...]
NOTHING_TOUCHED = Touched((), run_wide=False)


@dataclass(slots=True, eq=False)
class FoldedRun:
    """A run as the projector knows it.

    queues: every queue its tasks name. numbers: the place of each task in the order they came to
    be. chain_hash: of its newest event. counted: its tasks, as the bound of the cache counts them.
    planned: see `as_planned`. snapshot_version: of its newest snapshot; 0 = it has none.
    """

    state: RunState
    creator: Principal
    queues: dict[str, None] = field(default_factory=dict)
    numbers: dict[TaskName, int] = field(default_factory=dict)
    chain_hash: bytes = GENESIS
    counted: int = 0
    snapshot_version: int = 0
    planned: dict[TaskName, bytes] = field(default_factory=dict)

    def as_planned(self, record: TaskRecord) -> bytes:
        """Return what no event changes of a task's resource, serialised; made once a task."""
        found = self.planned.get(record.name)
        if found is None:
            shown = task_as_planned(self.state, record)
            found = self.planned[record.name] = shown.SerializeToString(deterministic=True)
        return found


class Step(NamedTuple):
    """One event and what it did. `run` is the state after it.

    before: the phase of the task that the event names, before it. queues: the queue of each task
    that the event adds.
    """

    envelope: RecordedEvent
    recorded: Recorded[Message]
    folded: FoldedRun | None = None
    touched: Touched = NOTHING_TOUCHED
    before: Phase | None = None
    queues: Sequence[str] = ()

    @property
    def run(self) -> FoldedRun:
        """The run after the event; only for views of folded runs."""
        assert self.folded is not None, "what is read by itself is of no folded run"
        return self.folded


class SettingsFacts(NamedTuple):
    """The facts of a settings stream: `<partition>-<kind>`, one of a kind in a partition."""

    kind: str
    codec: Codec


def newer(kept: Row, changed: Row) -> Row:
    """Take the newer of two rows with the same key."""
    del kept
    return changed


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class View:
    """One view.

    version: raise it when rows change their meaning or form: a new table is built from the log.
    row: the type of its rows; the first `key_count` fields are the key.
    of_event: the rows that an event changed. of_run: the one row of a run, made once for all the
      events of a batch that concern it. One of the two.
    reads: full names of the types it is handed, each read by itself; None: events of a run, folded.
    concerns: full names of the types of a folded run that may change its rows; None: all of them.
    settings: whose facts it is handed as well, each read by itself.
    merge: what a row becomes that is there already; SQL does the same.
    """

    name: str
    version: int
    row: type[Any]
    key_count: int
    of_event: Callable[[Step], Iterable[Row]] | None = None
    of_run: Callable[[FoldedRun], Row] | None = None
    reads: frozenset[str] | None = None
    concerns: frozenset[str] | None = None
    settings: SettingsFacts | None = None
    merge: Callable[[Row, Row], Row] = newer

    @property
    def table(self) -> str:
        """Its table, and its name as a follower of the log."""
        return f"{self.name}_v{self.version}"

    @property
    def columns(self) -> tuple[str, ...]:
        """The fields of its rows."""
        fields: tuple[str, ...] = self.row._fields
        return fields

    def key(self, row: Row) -> Key:
        """Return what tells the row from others."""
        return row[: self.key_count]


def names_of(*types: type[Message]) -> frozenset[str]:
    """Return the full names of message types."""
    return frozenset(message.DESCRIPTOR.full_name for message in types)
