"""ListRunChanges: its request and its pages."""

from __future__ import annotations

from stretto.run.v1 import run_service_pb2 as pb

from stretto_kernel.app.page_bytes import PAGE_BYTES_MAX
from stretto_kernel.projections.past_runs import WHOLE_VERSION, ChangeQuery, PastRuns, Place
from stretto_kernel.servicers.fields import Fields
from stretto_kernel.servicers.page_tokens import decode_token, encode_token, token_number

PAGE_DEFAULT = 100
PAGE_MAX = 1_000
KIND = "changes"


class ChangeListing:
    """Answers ListRunChanges of one partition."""

    def __init__(self, past: PastRuns) -> None:
        self._past = past

    async def list_changes(self, request: pb.ListRunChangesRequest) -> pb.ListRunChangesResponse:
        """Return a page. Raises InvalidArgument, RunNotFound, OutOfRange, ViewBehind, StoreDown."""
        fields = Fields()
        namespace, run_id = fields.run("parent", request.parent)
        size = fields.page_size(request.page_size, default=PAGE_DEFAULT, largest=PAGE_MAX)
        after_version = fields.count("after_version", request.after_version)
        until_version = fields.count("until_version", request.until_version)
        if 0 < until_version < after_version:
            fields.wrong("until_version", "must not be below after_version")
        fields.refuse("the request")
        after = Place(after_version, WHOLE_VERSION)
        if request.page_token:
            parts = decode_token("page_token", KIND, request.page_token, part_count=3)
            version, number, until_version = (token_number("page_token", part) for part in parts)
            after = Place(version, number)
        query = ChangeQuery(run_id, after, until_version)
        found = await self._past.list_changes(namespace, query, count_max=size)
        until_version, changes, last = found
        token = "" if last is None else encode_token(KIND, *map(str, (*last, until_version)))
        answer = pb.ListRunChangesResponse(
            changes=changes, next_page_token=token, until_version=until_version
        )
        if answer.ByteSize() > PAGE_BYTES_MAX and size > 1:
            # Rare: results of up to 64 KiB stand in tasks. Read again in halves.
            request.page_size = size // 2
            return await self.list_changes(request)
        return answer
