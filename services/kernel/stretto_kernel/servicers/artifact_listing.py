"""ListArtifacts: its request and its pages.

Terms of a filter: `task = "TEXT"`, `name = "TEXT"`, `content_type = "TEXT"`.
"""

from __future__ import annotations

from dataclasses import replace

from stretto.common.v1.lease_pb2 import Position
from stretto.run.v1 import run_service_pb2 as pb
from stretto_core.eventlog.port import EventLog
from stretto_core.ids import RunId

from stretto_kernel.app.artifact_listing import ArtifactFilter, ArtifactList, ArtifactPlace
from stretto_kernel.app.moments import newest_position
from stretto_kernel.app.page_bytes import PAGE_BYTES_MAX, count_within
from stretto_kernel.projections.artifacts import ARTIFACTS
from stretto_kernel.projections.view_reach import ViewReach
from stretto_kernel.servicers.fields import Fields
from stretto_kernel.servicers.filter_terms import filter_terms
from stretto_kernel.servicers.page_tokens import decode_token, encode_token, token_number

PAGE_DEFAULT = 100
PAGE_MAX = 1_000
KIND = "artifacts"


class ArtifactListing:
    """Answers ListArtifacts of the partition whose log is given."""

    def __init__(self, view: ArtifactList, log: EventLog, reach: ViewReach) -> None:
        self._view = view
        self._log = log
        self._reach = reach

    async def list_artifacts(self, request: pb.ListArtifactsRequest) -> pb.ListArtifactsResponse:
        """Return a page. Raises InvalidArgument, RunNotFound, ViewBehind, StoreDown."""
        fields = Fields()
        namespace, run_id = fields.run("parent", request.parent)
        size = fields.page_size(request.page_size, default=PAGE_DEFAULT, largest=PAGE_MAX)
        asked = parse_filter(fields, run_id, request.filter)
        fields.refuse("the request")
        if request.page_token:
            parts = decode_token("page_token", KIND, request.page_token, part_count=3)
            task, epoch, name = parts
            after = ArtifactPlace(task, token_number("page_token", epoch), name)
            asked = replace(asked, after=after)
        newest = await newest_position(self._log, namespace, run_id)
        found = await self._reach.read(
            newest, [ARTIFACTS], lambda: self._view.list_artifacts(asked, count_max=size)
        )
        sizes = (artifact.ByteSize() for artifact in found.artifacts)
        shown = found.artifacts[: count_within(sizes, PAGE_BYTES_MAX)]
        token = ""
        if found.more or len(shown) < len(found.artifacts):
            last = shown[-1]
            token = encode_token(KIND, last.task, str(last.epoch), last.artifact.name)
        position = Position(partition=self._log.partition, number=found.position)
        return pb.ListArtifactsResponse(
            artifacts=shown, next_page_token=token, view_position=position
        )


def parse_filter(fields: Fields, run_id: RunId, text: str) -> ArtifactFilter:
    """Return what the filter asks for, noting what is wrong with it."""
    asked = ArtifactFilter(run_id=run_id)
    for name, comparison, value, quoted in filter_terms(fields, text, "task|name|content_type"):
        if comparison != "=":
            fields.wrong("filter", f"{name} cannot be compared by {comparison}")
        elif not quoted or not value:
            fields.wrong("filter", f'{name} must equal "TEXT"')
        elif name == "task":
            asked = replace(asked, task=value)
        elif name == "name":
            asked = replace(asked, name=value)
        else:
            asked = replace(asked, content_type=value)
    return asked
