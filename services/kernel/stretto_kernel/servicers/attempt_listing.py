"""ListAttempts: its request and its pages."""

from __future__ import annotations

from stretto.common.v1.lease_pb2 import Position
from stretto.run.v1 import run_service_pb2 as pb
from stretto_core.ids import Partition

from stretto_kernel.app.attempt_listing import AttemptFilter, AttemptList
from stretto_kernel.app.page_bytes import PAGE_BYTES_MAX, count_within
from stretto_kernel.domain.run.refusals import RunNotFound
from stretto_kernel.projections.attempts import ATTEMPTS
from stretto_kernel.projections.view_reach import ViewReach
from stretto_kernel.servicers.fields import Fields
from stretto_kernel.servicers.page_tokens import decode_token, encode_token, token_number
from stretto_kernel.servicers.view_positions import least_position

PAGE_DEFAULT = 100
PAGE_MAX = 1_000
TASK_CHARACTERS_MAX = 2_000


class AttemptListing:
    """Answers ListAttempts from the view of one partition."""

    def __init__(self, view: AttemptList, partition: Partition, reach: ViewReach) -> None:
        self._view = view
        self._partition = partition
        self._reach = reach

    async def list_attempts(self, request: pb.ListAttemptsRequest) -> pb.ListAttemptsResponse:
        """Return a page. Raises InvalidArgument, NotFound, OutOfRange, ViewBehind, StoreDown."""
        fields = Fields()
        namespace, run_id = fields.run("parent", request.parent)
        size = fields.page_size(request.page_size, default=PAGE_DEFAULT, largest=PAGE_MAX)
        task = fields.text("task", request.task, characters_max=TASK_CHARACTERS_MAX)
        least = least_position(fields, request.min_position, self._partition)
        fields.refuse("the request")
        after = 0
        if request.page_token:
            (version,) = decode_token("page_token", "attempts", request.page_token, part_count=1)
            after = token_number("page_token", version)
        found = AttemptFilter(namespace=namespace, run_id=run_id, task=task, after_version=after)
        page = await self._reach.read(
            least, [ATTEMPTS], lambda: self._view.list_attempts(found, count_max=size)
        )
        if not page.run_known:
            raise RunNotFound(run_id)
        sizes = (listed.attempt.ByteSize() for listed in page.attempts)
        shown = page.attempts[: count_within(sizes, PAGE_BYTES_MAX)]
        token = ""
        if page.more or len(shown) < len(page.attempts):
            token = encode_token("attempts", str(shown[-1].leased_version))
        position = Position(partition=self._partition, number=page.position)
        return pb.ListAttemptsResponse(
            attempts=[listed.attempt for listed in shown],
            next_page_token=token,
            view_position=position if page.position else None,
        )
