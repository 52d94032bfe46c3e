"""Carries out fresh folds: rebuilds and comparisons, one at a time, over deaths of its process.

A copy is a view like the others: it is built from the first event, comes into step with the live
ones, and follows the log with them, so that what was proven equal once stays equal. The proof reads
both as of one instant while they go on; the exchange is a change of names in one transaction. A
view that stands still has nothing to be held against: its copy takes its place without a proof, if
it came past what stopped the view.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace

import structlog

from stretto_kernel.projections.cohort import Cohort
from stretto_kernel.projections.fresh_folds import FoldPhase, FreshFold, FreshFoldStore, Proof
from stretto_kernel.projections.lead import Lead
from stretto_kernel.projections.store import Target, ViewStore

LOOK_S = 2.0
NOTE_S = 0.25


class _GivenUp(Exception):
    """The fold cannot be finished."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


class FoldKeeper:
    """Looks for what is asked, and does it beside the views of `lead`."""

    def __init__(
        self,
        store: ViewStore,
        fresh: FreshFoldStore,
        lead: Lead,
        live: Sequence[Target],
        new_cohort: Callable[[Iterable[Target], int], Cohort],
    ) -> None:
        self._store = store
        self._fresh = fresh
        self._lead = lead
        self._live = {target.view.name: target for target in live}
        self._new_cohort = new_cohort
        self.rebuilt: Callable[[Collection[str]], None] = _nobody
        """Told the names of views that a fresh fold has replaced."""
        self._log = structlog.get_logger("stretto.kernel.projector")

    async def run(self) -> None:
        """Do what is asked until cancelled. Raises Unavailable, PositionMoved."""
        while True:
            fold = await self._fresh.open_fold()
            if fold is None:
                await asyncio.sleep(LOOK_S)
            else:
                await self._do(fold)

    async def _do(self, fold: FreshFold) -> None:
        live = [self._live[name] for name in fold.views if name in self._live]
        copies = [Target(target.view, is_copy=True) for target in live]
        try:
            if len(live) < len(fold.views):
                raise _GivenUp("NOT_FOUND", "this version does not have all of these views")
            done = await self._build(fold, copies)
            done = await self._prove(done, live, copies)
            done = await self._finish(done, live, copies)
        except _GivenUp as given_up:
            done = replace(fold, phase=FoldPhase.DONE)
            done = replace(done, failure_reason=given_up.reason, failure=given_up.message)
        self._lead.leave(copies)
        await self._store.empty(copies)
        await self._fresh.note(done)
        self._log.info("fold.done", fold_id=fold.fold_id, swaps=fold.swaps, failure=done.failure)

    async def _build(self, fold: FreshFold, copies: Sequence[Target]) -> FreshFold:
        if fold.phase is FoldPhase.ASKED:
            await self._store.empty(copies)
        fold = replace(fold, phase=FoldPhase.BUILDING)
        await self._fresh.note(fold)
        positions = await self._store.prepare(copies)
        if len(set(positions.values())) > 1:
            await self._store.empty(copies)
            positions = await self._store.prepare(copies)
        position = next(iter(positions.values()))
        progress = _Progress(self._fresh, fold, self._lead, position)
        cohort = self._new_cohort(copies, position)
        await self._lead.join(cohort, progress.note)
        for target, stop in cohort.stops.items():
            raise _GivenUp(
                stop.reason,
                f"{target.view.name} cannot take the event at {stop.position}: {stop.message}; "
                "mend the event from a copy of the record, or start a version that can read it, "
                "then ask again",
            )
        return progress.fold

    async def _prove(
        self, fold: FreshFold, live: Sequence[Target], copies: Sequence[Target]
    ) -> FreshFold:
        fold = replace(fold, phase=FoldPhase.PROVING, remaining_s=None)
        await self._fresh.note(fold)
        async with self._lead.between:
            await self._lead.cohort.settle()
            self._require_in_step(copies if fold.swaps else [*live, *copies])
            pairs = [
                pair
                for pair in zip(live, copies, strict=True)
                if pair[0] in self._lead.cohort.targets
            ]
            snapshot = await self._fresh.snapshot([target for pair in pairs for target in pair])
        proofs: list[Proof] = []
        try:
            for target, copy in pairs:
                proofs.append(await snapshot.prove(target, copy))
        finally:
            await snapshot.close()
        return replace(fold, proofs=tuple(proofs))

    async def _finish(
        self, fold: FreshFold, live: Sequence[Target], copies: Sequence[Target]
    ) -> FreshFold:
        done = replace(fold, phase=FoldPhase.DONE)
        if not fold.swaps:
            return done
        async with self._lead.between:
            await self._lead.cohort.settle()
            self._require_in_step(copies)
            # With the word that it is done, in one transaction: a death after it repeats nothing.
            swap_ns = await self._fresh.swap(copies, done)
            self._lead.leave(copies)
            self._lead.resume(live)
        self.rebuilt(fold.views)
        return replace(done, swap_ns=swap_ns)

    def _require_in_step(self, targets: Iterable[Target]) -> None:
        for target in targets:
            if target not in self._lead.cohort.targets:
                which = "copy of the view" if target.is_copy else "view"
                raise _GivenUp(
                    "VIEW_STOPPED",
                    f"the {which} {target.view.name} does not follow the log: `stretto views` "
                    "says why; `stretto rebuild` makes one that stands still anew",
                )


def _nobody(views: Collection[str]) -> None:
    del views


class _Progress:
    """Writes down how far a fold is, now and then."""

    def __init__(self, fresh: FreshFoldStore, fold: FreshFold, lead: Lead, position: int) -> None:
        self._fresh = fresh
        self.fold = fold
        self._lead = lead
        self._first_position = position
        self._event_count = 0
        self._loop = asyncio.get_running_loop()
        self._began_s = self._noted_s = self._loop.time()

    async def note(self, event_count: int, position: int) -> None:
        """So many more events are folded, up to there."""
        now_s = self._loop.time()
        self._event_count += event_count
        elapsed_s = max(now_s - self._began_s, 1e-6)
        last = self._lead.cohort.position
        passed = position - self._first_position
        remaining_s = (last - position) * elapsed_s / passed if passed else None
        self.fold = replace(
            self.fold,
            position=position,
            log_position=last,
            events_per_s=self._event_count / elapsed_s,
            remaining_s=remaining_s,
        )
        if now_s - self._noted_s >= NOTE_S:
            self._noted_s = now_s
            await self._fresh.note(self.fold)
