"""Views that are at the same position: one fold of each event, one transaction for a batch.

While a batch is stored the next one is folded; their order stays. An event that cannot be read or
folded stops the views that read it, at the event before it; the others go on. So does a view whose
table refuses rows, at the batch before them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence

import structlog
from stretto_core.errors import Refusal, Unavailable
from stretto_core.eventlog.codec import Codec
from stretto_core.eventlog.port import EventLog
from stretto_core.eventlog.recorded import StoredEvent
from stretto_core.ids import Partition, RunId, StreamId

from stretto_kernel.app.snapshots import Snapshots
from stretto_kernel.projections.run_folds import RunFolds
from stretto_kernel.projections.settings_reading import SettingsReading
from stretto_kernel.projections.store import Change, RowsRefused, Stop, Target, ViewStore
from stretto_kernel.projections.view import FoldedRun, Key, Row, Step

FOLD_PAGE_EVENTS = 1_000
FOLD_SLICE_EVENTS = 200


class _Unfoldable(Exception):
    """Views that cannot take an event, each with the reason."""

    def __init__(self, index: int, causes: dict[Target, Exception]) -> None:
        super().__init__(index)
        self.index = index
        self.causes = causes


class _Taker:
    """Collects what one table changes in a batch: it is asked for every event of its types."""

    __slots__ = ("_key_count", "_merge", "_of_event", "_rows", "target")

    def __init__(self, target: Target, rows: dict[Key, Row]) -> None:
        assert target.view.of_event is not None, "it takes events"
        self.target = target
        self._rows = rows
        self._of_event = target.view.of_event
        self._merge = target.view.merge
        self._key_count = target.view.key_count

    def take(self, step: Step, causes: dict[Target, Exception]) -> None:
        """Collect the rows that the event changed, or note why that is not possible."""
        rows, key_count = self._rows, self._key_count
        try:
            for row in self._of_event(step):
                key = row[:key_count]
                kept = rows.get(key)
                rows[key] = row if kept is None else self._merge(kept, row)
        except Exception as error:
            causes[self.target] = error


class _TakersByType(dict[str, tuple[list[_Taker], list[_Taker]]]):
    """Who is asked for an event of a type: those of folded runs, and those that read it alone.

    Of a type that cannot be read everybody is asked: nobody may pass over it.
    """

    def __init__(
        self, targets: Iterable[Target], rows: dict[Target, dict[Key, Row]], folds: RunFolds
    ) -> None:
        super().__init__()
        self._takers = [
            _Taker(target, rows.setdefault(target, {}))
            for target in targets
            if target.view.of_event is not None
        ]
        self._folds = folds

    def of_settings(self, partition: Partition) -> dict[StreamId, tuple[Codec, list[_Taker]]]:
        """How the facts of a settings stream are read, and who is handed them."""
        found: dict[StreamId, tuple[Codec, list[_Taker]]] = {}
        for taker in self._takers:
            if (settings := taker.target.view.settings) is not None:
                stream = StreamId(f"{partition}-{settings.kind}")
                found.setdefault(stream, (settings.codec, []))[1].append(taker)
        return found

    def __missing__(self, type_name: str) -> tuple[list[_Taker], list[_Taker]]:
        unknown = not self._folds.knows(type_name)
        of_folded: list[_Taker] = []
        alone: list[_Taker] = []
        for taker in self._takers:
            view = taker.target.view
            kind, types = (of_folded, view.concerns) if view.reads is None else (alone, view.reads)
            if unknown or types is None or type_name in types:
                kind.append(taker)
        self[type_name] = (of_folded, alone)
        return of_folded, alone


class Cohort:
    """Keeps some tables in step. Its state is void after an exception of any method.

    snapshots: runs are folded from theirs, and get new ones; None: from their first event.
    """

    def __init__(
        self,
        log: EventLog,
        store: ViewStore,
        folds: RunFolds,
        targets: Iterable[Target],
        position: int,
        *,
        snapshots: Snapshots | None = None,
    ) -> None:
        self._log = log
        self._snapshots = snapshots
        self._store = store
        self._folds = folds
        self._settings = SettingsReading(log)
        self.targets = list(targets)
        self.position = position
        self.stops: dict[Target, Stop] = {}
        self._rows: dict[Target, dict[Key, Row]] = {}
        self._changed: dict[FoldedRun, None] = {}
        self._saving: asyncio.Task[None] | None = None
        self._unsaid = True
        self._logger = structlog.get_logger("stretto.kernel.projector")

    async def project(self, batch: Sequence[StoredEvent]) -> None:
        """Fold the next events of the log; their rows are stored by the next call's end.

        Raises Unavailable, PositionMoved.
        """
        while batch:
            try:
                await self._fold(batch)
            except _Unfoldable as unfoldable:
                # The fold is past what may be stored: fold again what comes before the event.
                await self.settle()
                self._forget()
                await self._fold(batch[: unfoldable.index])
                self._save(batch[: unfoldable.index])
                await self.settle()
                for target, cause in unfoldable.causes.items():
                    await self._stop(target, _stop_before(batch[unfoldable.index], cause), cause)
                batch = batch[unfoldable.index :]
            else:
                await self.settle()
                changed = list(self._changed)
                self._save(batch)
                await self._make_snapshots(changed)
                return

    async def settle(self) -> None:
        """Return once everything folded is stored. Raises Unavailable, PositionMoved."""
        saving, self._saving = self._saving, None
        if saving is not None:
            await saving
            if self._unsaid:
                self._unsaid = False
                await self._store.note_following(self.targets)

    def close(self) -> None:
        """Leave what is being stored to itself."""
        if self._saving is not None:
            self._saving.cancel()

    async def _fold(self, batch: Sequence[StoredEvent]) -> None:
        of_runs = [each for each in self.targets if each.view.reads is None]
        takers = _TakersByType(self.targets, self._rows, self._folds)
        of_settings = takers.of_settings(self._log.partition)
        for index, stored in enumerate(batch):
            causes: dict[Target, Exception] = {}
            if self._folds.is_of_run(stored):
                of_folded, alone = takers[stored.type]
                step: Step | None = None
                if of_runs:
                    try:
                        step = await self._fold_run(stored)
                    except Unavailable:
                        raise
                    except Exception as error:
                        causes.update(dict.fromkeys(of_runs, error))
                    else:
                        for taker in of_folded:
                            taker.take(step, causes)
                if alone:
                    self._take_alone(stored, step, alone, causes)
            elif stored.stream in of_settings:
                await self._take_settings(stored, *of_settings[stored.stream], causes)
            if causes:
                raise _Unfoldable(index, causes)
            if index % FOLD_SLICE_EVENTS == FOLD_SLICE_EVENTS - 1:
                await asyncio.sleep(0)

    async def _fold_run(self, stored: StoredEvent) -> Step:
        while (version := self._folds.missing_after(stored)) is not None:
            if version == 0 and await self._begin_from_snapshot(stored):
                continue
            limit = min(stored.version - 1 - version, FOLD_PAGE_EVENTS)
            page = await self._log.read_stream(stored.stream, after_version=version, limit=limit)
            for event in page.events:
                self._folds.fold(event)
            if not page.events:
                raise LookupError(f"{stored.stream} has no version {version + 1}")
        step = self._folds.fold(stored)
        self._changed[step.run] = None
        return step

    async def _begin_from_snapshot(self, stored: StoredEvent) -> bool:
        snapshots = self._snapshots
        if snapshots is None or stored.version <= snapshots.events_min:
            return False
        found = await snapshots.find(RunId(stored.stream), before=stored.version)
        if found is not None:
            self._folds.go_on_from(found)
        return found is not None

    async def _make_snapshots(self, changed: Iterable[FoldedRun]) -> None:
        for run in changed if self._snapshots is not None else ():
            assert self._snapshots is not None
            if not self._snapshots.is_due(run.state, run.snapshot_version):
                continue
            run.snapshot_version = run.state.version
            try:
                await self._snapshots.make(run.state, run.chain_hash)
            except Unavailable as cause:
                # The next one is made when its turn comes: views do not wait for it.
                self._logger.info("snapshot.not_made", cause=cause.reason_word)

    def _take_alone(
        self,
        stored: StoredEvent,
        step: Step | None,
        takers: Sequence[_Taker],
        causes: dict[Target, Exception],
    ) -> None:
        if step is None:
            try:
                decoded = self._folds.read(stored)
            except Refusal as error:
                causes.update((taker.target, error) for taker in takers)
                return
            step = Step(decoded.envelope, decoded.recorded)
        for taker in takers:
            taker.take(step, causes)

    async def _take_settings(
        self,
        stored: StoredEvent,
        codec: Codec,
        takers: Sequence[_Taker],
        causes: dict[Target, Exception],
    ) -> None:
        try:
            step = await self._settings.read(stored, codec)
        except Unavailable:
            raise
        except Refusal as error:
            causes.update((taker.target, error) for taker in takers)
            return
        for taker in takers:
            taker.take(step, causes)

    def _save(self, batch: Sequence[StoredEvent]) -> None:
        if not batch:
            return
        changes = []
        for target in self.targets:
            of_run: Callable[[FoldedRun], Row] | None = target.view.of_run
            if of_run is not None:
                changes.append(Change(target, [of_run(run) for run in self._changed]))
            else:
                changes.append(Change(target, list(self._rows.get(target, {}).values())))
        self._folds.trim(self._changed)
        self._rows, self._changed = {}, {}
        after, self.position = self.position, batch[-1].position
        if changes:
            save = self._store_batch(changes, after, batch)
            self._saving = asyncio.create_task(save, name="save-views")

    async def _store_batch(
        self, changes: list[Change], after: int, batch: Sequence[StoredEvent]
    ) -> None:
        """Store what a batch changed; a view whose rows are refused stops before the batch."""
        first, last = batch[0].position, batch[-1].position
        while changes:
            try:
                await self._store.save(changes, after=after, position=last, event_count=len(batch))
                return
            except RowsRefused as refused:
                message = f"rows of the events from {first} to {last}: {refused}"
                await self._stop(refused.target, Stop(first, "ROWS_REFUSED", message), refused)
                changes = [each for each in changes if each.target is not refused.target]

    def _forget(self) -> None:
        self._folds.forget_all()
        self._rows, self._changed = {}, {}

    async def _stop(self, target: Target, stop: Stop, cause: Exception) -> None:
        if target in self.stops:
            return
        self._logger.error(
            "view.stopped",
            view=target.table,
            position=stop.position,
            reason=stop.reason,
            exc_info=cause,
        )
        self.targets.remove(target)
        self.stops[target] = stop
        if not target.is_copy:
            await self._store.note_stop(target, stop)


def _stop_before(stored: StoredEvent, cause: Exception) -> Stop:
    reason = cause.reason_word if isinstance(cause, Refusal) else "INTERNAL"
    message = str(cause) if isinstance(cause, Refusal) else f"{type(cause).__name__}: {cause}"
    return Stop(stored.position, reason, f"{stored.stream} version {stored.version}: {message}")
