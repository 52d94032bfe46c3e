"""ListRuns: pages of the view `run_index`, newest first."""

from __future__ import annotations

from typing import Protocol

from stretto.run.v1 import run_service_pb2 as pb
from stretto_core.errors import Unimplemented


class RunListing(Protocol):
    """Answers ListRuns."""

    async def list_runs(self, request: pb.ListRunsRequest) -> pb.ListRunsResponse:
        """Return a page. Raises InvalidArgument, Unavailable."""
        ...


class NoRunListing:
    """Stands where no view is at hand."""

    async def list_runs(self, request: pb.ListRunsRequest) -> pb.ListRunsResponse:
        """Refuse."""
        raise Unimplemented("this kernel keeps no view of runs", feature="list_runs")
