"""Listing artifacts from the view: what is asked, a page of it, and where it is kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from stretto.run.v1 import run_pb2
from stretto_core.ids import RunId


class ArtifactPlace(NamedTuple):
    """An artifact's place in the order of its run's."""

    task: str
    epoch: int
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ArtifactFilter:
    """Which artifacts of a run, in the order of their places; "" = any.

    after: the place of the one before the first; None = from the beginning.
    """

    run_id: RunId
    task: str = ""
    name: str = ""
    content_type: str = ""
    after: ArtifactPlace | None = None


class ArtifactPage(NamedTuple):
    """Some artifacts as of a position at least, and whether there are more."""

    position: int
    artifacts: Sequence[run_pb2.TaskArtifact]
    more: bool


class ArtifactList(Protocol):
    """The view that lists artifacts."""

    async def list_artifacts(self, found: ArtifactFilter, *, count_max: int) -> ArtifactPage:
        """Return a page; an empty one at position 0 while there is no view. Raises Unavailable."""
        ...
