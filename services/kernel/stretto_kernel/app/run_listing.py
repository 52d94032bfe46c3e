"""Listing runs from the view: what is asked, a page of it, and where it is kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

from stretto_core.ids import Namespace, RunId

NEWEST_NS = (1 << 63) - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFilter:
    """Which runs, by the time of their creation, and by id among those of the same; None = any.

    labels_json: an object that the run's labels contain. since_ns, before_ns: created from then on,
    and before then. after: (create_ns, run_id) of the run before the first.
    """

    namespace: Namespace
    state: int | None = None
    display_name: str | None = None
    labels_json: str | None = None
    since_ns: int = 0
    before_ns: int = NEWEST_NS
    oldest_first: bool = False
    after: tuple[int, str] | None = None


class ListedRun(NamedTuple):
    """One run: its place in the order, and the serialised resource."""

    run_id: RunId
    create_ns: int
    shown: bytes


class RunListPage(NamedTuple):
    """Some runs as of a position at least, and whether there are more."""

    position: int
    runs: list[ListedRun]
    more: bool


class RunList(Protocol):
    """The view that lists runs."""

    async def list_runs(self, found: RunFilter, *, count_max: int) -> RunListPage:
        """Return a page; an empty one at position 0 while there is no view. Raises Unavailable."""
        ...
