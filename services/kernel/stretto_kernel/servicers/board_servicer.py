"""BlackboardService: the blackboards of the runs of the partition a kernel owns."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any, TypeVar

from google.protobuf.message import Message
from stretto.blackboard.v1 import blackboard_pb2
from stretto.blackboard.v1 import blackboard_service_pb2 as pb
from stretto.blackboard.v1.blackboard_service_pb2_grpc import BlackboardServiceServicer

from stretto_kernel.app.board_calls import EntryPage, to_entry
from stretto_kernel.app.moments import AtVersion
from stretto_kernel.app.page_bytes import PAGE_BYTES_MAX, count_within
from stretto_kernel.domain.run.blackboard_state import BoardEntry
from stretto_kernel.kernel import Kernel
from stretto_kernel.projections.past_boards import PastBoards
from stretto_kernel.servicers import board_requests as parse
from stretto_kernel.servicers.asked import Asked, asked_now
from stretto_kernel.servicers.page_tokens import decode_token, encode_token, token_number
from stretto_kernel.servicers.run_requests import position_of

Read = TypeVar("Read", bound=Message)


class BoardServicer(BlackboardServiceServicer):
    """Answers from the ownership at hand, and from the view as of an earlier moment."""

    def __init__(self, kernel: Kernel, past: PastBoards) -> None:
        self._kernel = kernel
        self._past = past
        self._partition_name = kernel.ports.log.partition

    async def GetEntries(
        self, request: pb.GetEntriesRequest, context: Any
    ) -> pb.GetEntriesResponse:
        """See the contract."""
        (namespace, run_id, moment), keys = parse.parse_get(request, self._partition_name)
        if moment is None:
            page = await self._kernel.partition.boards.get(namespace, run_id, keys)
        else:
            page = await self._past.get(namespace, run_id, moment, keys)
        response = pb.GetEntriesResponse(
            entries=_show_all(request.run, page.entries), revision=page.version
        )
        return await self._revealed(response)

    async def PutEntries(
        self, request: pb.PutEntriesRequest, context: Any
    ) -> pb.PutEntriesResponse:
        """See the contract."""
        write = parse.parse_put(request, self._asked())
        revision, number = await self._kernel.partition.boards.write(write)
        position = position_of(self._partition_name, number)
        return pb.PutEntriesResponse(revision=revision, position=position)

    async def DeleteEntries(
        self, request: pb.DeleteEntriesRequest, context: Any
    ) -> pb.DeleteEntriesResponse:
        """See the contract."""
        write = parse.parse_delete(request, self._asked())
        revision, number = await self._kernel.partition.boards.write(write)
        position = position_of(self._partition_name, number)
        return pb.DeleteEntriesResponse(revision=revision, position=position)

    async def ListEntries(
        self, request: pb.ListEntriesRequest, context: Any
    ) -> pb.ListEntriesResponse:
        """See the contract."""
        board, query, size = parse.parse_list(request, self._partition_name)
        namespace, run_id, moment = board
        if moment is None:
            if request.page_token:
                (after,) = decode_token("page_token", _NOW, request.page_token, part_count=1)
                query = replace(query, after_key=after)
            page = await self._kernel.partition.boards.list_entries(
                namespace, run_id, query, count_max=size
            )
            return await self._revealed(_page(request.run, page))
        if request.page_token:
            version, after = decode_token("page_token", _THEN, request.page_token, part_count=2)
            moment = AtVersion(token_number("page_token", version))
            query = replace(query, after_key=after)
        page = await self._past.list_entries(namespace, run_id, moment, query, count_max=size)
        return await self._revealed(_page(request.run, page, then=True))

    async def WatchEntries(
        self, request: pb.WatchEntriesRequest, context: Any
    ) -> AsyncIterator[pb.WatchEntriesResponse]:
        """See the contract."""
        (namespace, run_id, _), prefix, after = parse.parse_watch(request)
        changes = self._kernel.partition.board_watching.watch(namespace, run_id, prefix, after)
        async with aclosing(changes):
            async for entries, revision, ended in changes:
                response = pb.WatchEntriesResponse(
                    changes=_show_all(request.run, entries), revision=revision, ended=ended
                )
                yield await self._revealed(response)

    async def _revealed(self, response: Read) -> Read:
        """What a view tells, or a shredded run, is as the log has it: decrypt or mark it."""
        await self._kernel.ports.keys.reveal([response])
        return response

    def _asked(self) -> Asked:
        return asked_now(self._kernel.ports.clock)


_NOW, _THEN = "entries", "entries then"


def _show_all(run_name: str, entries: Sequence[BoardEntry]) -> list[blackboard_pb2.Entry]:
    return [to_entry(run_name, entry) for entry in entries]


def _page(run_name: str, page: EntryPage, *, then: bool = False) -> pb.ListEntriesResponse:
    shown = _show_all(run_name, page.entries)
    del shown[count_within((entry.ByteSize() for entry in shown), PAGE_BYTES_MAX) :]
    token = ""
    if page.more or len(shown) < len(page.entries):
        last = shown[-1].key
        token = encode_token(_THEN, str(page.version), last) if then else encode_token(_NOW, last)
    return pb.ListEntriesResponse(entries=shown, next_page_token=token, revision=page.version)
