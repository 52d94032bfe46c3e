"""Listing attempts from the view: what is asked, a page of it, and where it is kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

from stretto.run.v1 import run_pb2
from stretto_core.ids import Namespace, RunId


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptFilter:
    """Which attempts of a run, in the order they were leased.

    task: "" = of all tasks. after_version: those leased by later events of the run.
    """

    namespace: Namespace
    run_id: RunId
    task: str = ""
    after_version: int = 0


class ListedAttempt(NamedTuple):
    """One attempt, and the version of its run that began it."""

    leased_version: int
    attempt: run_pb2.Attempt


class AttemptPage(NamedTuple):
    """Some attempts as of a position at least. run_known: the view has the run."""

    position: int
    attempts: list[ListedAttempt]
    more: bool
    run_known: bool


class AttemptList(Protocol):
    """The view that lists attempts."""

    async def list_attempts(self, found: AttemptFilter, *, count_max: int) -> AttemptPage:
        """Return a page; an empty one at position 0 while there is no view. Raises Unavailable."""
        ...
