"""A fresh fold of views beside the live ones: what is asked for, how far it is, what it proved.

It is kept where the views are, so that it goes on over the death of any process: whoever serves a
caller writes down what is asked, the projector does it and writes down how far it is.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from stretto_kernel.projections.store import Target


class FoldPhase(enum.IntEnum):
    """How far a fresh fold is: the numbers of stretto.projection.v1.FoldPhase."""

    ASKED = 1
    BUILDING = 2
    PROVING = 3
    DONE = 4


@dataclass(frozen=True, slots=True)
class Proof:
    """A view and its copy at one position; a digest is over the rows in the order of keys."""

    view: str
    position: int
    live_row_count: int
    fresh_row_count: int
    live_digest: bytes
    fresh_digest: bytes

    @property
    def equal(self) -> bool:
        """Whether both have the same rows."""
        return self.live_digest == self.fresh_digest


@dataclass(frozen=True, slots=True, kw_only=True)
class FreshFold:
    """A rebuild, or a comparison, as far as it is.

    swaps: the copies take the place of the live views. swap_ns: how long readers had to wait.
    remaining_s: None = not known. failure_reason: empty = it did not fail.
    """

    fold_id: str
    views: tuple[str, ...]
    swaps: bool
    phase: FoldPhase = FoldPhase.ASKED
    position: int = 0
    log_position: int = 0
    events_per_s: float = 0.0
    remaining_s: float | None = None
    proofs: tuple[Proof, ...] = ()
    swap_ns: int = 0
    failure_reason: str = ""
    failure: str = ""

    @property
    def is_done(self) -> bool:
        """Whether it is over."""
        return self.phase is FoldPhase.DONE


def fold_form(fold: FreshFold) -> dict[str, Any]:
    """Return a fold as what JSON can carry."""
    form = asdict(fold)
    for proof in form["proofs"]:
        for digest in ("live_digest", "fresh_digest"):
            proof[digest] = proof[digest].hex()
    return form


def fold_of(form: dict[str, Any]) -> FreshFold:
    """Return the fold of a form that `fold_form` made."""
    proofs = tuple(
        Proof(
            **{
                **proof,
                "live_digest": bytes.fromhex(proof["live_digest"]),
                "fresh_digest": bytes.fromhex(proof["fresh_digest"]),
            }
        )
        for proof in form["proofs"]
    )
    phase, views = FoldPhase(form["phase"]), tuple(form["views"])
    return FreshFold(**{**form, "phase": phase, "views": views, "proofs": proofs})


class Snapshot(Protocol):
    """The tables as of one instant, whatever is stored meanwhile. Close it."""

    async def prove(self, live: Target, fresh: Target) -> Proof:
        """Compare two tables row by row. Raises Unavailable."""
        ...

    async def close(self) -> None:
        """Free it."""
        ...


class FreshFoldStore(Protocol):
    """What the projector needs for fresh folds. Every method raises Unavailable."""

    async def open_fold(self) -> FreshFold | None:
        """Return the one that is not done."""
        ...

    async def note(self, fold: FreshFold) -> None:
        """Write down how far it is."""
        ...

    async def snapshot(self, targets: Collection[Target]) -> Snapshot:
        """Hold the tables fast as they are now. Raises PositionMoved if they are not in step."""
        ...

    async def swap(self, copies: Sequence[Target], done: FreshFold) -> int:
        """Put copies in the place of the live tables and write down `done`, in one transaction.

        Returns for how many ns readers had to wait. A view that stood still does so no longer.
        Raises PositionMoved if a copy is not in step with the view whose place it takes, and that
        one does not stand still.
        """
        ...
