"""The blackboard of one run, as programs use it: `Client.blackboard(run)`, and `ctx.blackboard`.

Each write is repeated under one request id until it is answered, so it happens once. Values are
JSON, or bytes; what is too large for a fact is put as a blob and fetched again by itself.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from stretto.blackboard.v1 import blackboard_pb2
from stretto.blackboard.v1 import blackboard_service_pb2 as pb
from stretto.common.v1.lease_pb2 import LeaseToken
from stretto.common.v1.payload_pb2 import Payload
from stretto_core.errors import InvalidArgument

from stretto_sdk.board_link import BoardLink
from stretto_sdk.moments import Moment, as_of_message
from stretto_sdk.value_sizes import BLOB_BYTES_MAX
from stretto_sdk.values import fetched, stored
from stretto_sdk.words import member_of
from stretto_sdk.worker.endings import payload_of, value_of


class WriterKind(StrEnum):
    """What kind of writer."""

    WORKER = "WORKER"
    VERIFIER = "VERIFIER"
    OPERATOR = "OPERATOR"
    KERNEL = "KERNEL"
    UNKNOWN = "UNKNOWN"
    """One that only a newer kernel knows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BoardEntry:
    """An entry as one write left it.

    revision: rises with every change of the key and is never used again. deleted: it is not there
    any more; only a watch says so. writer: the worker's id, or the name of the principal; task,
    attempt, epoch: what a worker held.
    """

    key: str
    value: object
    revision: int
    deleted: bool
    write_time: datetime
    writer_kind: WriterKind
    writer: str
    task: str
    attempt: int
    epoch: int


class Blackboard:
    """The blackboard of one run.

    A key is `<namespace>/<path>` of the run, or `<task>:<namespace>/<path>` of one task; namespaces
    are context, plan, progress, result, artifacts, verifier, human and custom. In a task ":" alone
    stands for its own scope, where it may write:

        >>> await ctx.blackboard.put(":progress/percent", 50)
        >>> goal = await ctx.blackboard.get("context/goal")

    Reads see every write that was acknowledged before; `watch` tells every change once, in order.
    Made by `Client.blackboard` and for each attempt; nothing else makes one.
    """

    def __init__(
        self,
        reach: Callable[[], BoardLink],
        run: str,
        *,
        new_id: Callable[[], str],
        scope: str = "",
        token: LeaseToken | None = None,
    ) -> None:
        # At the first call, not here: a channel belongs to the loop that runs when it is made.
        self._reach = reach
        self._run = run
        self._namespace = run.removeprefix("namespaces/").partition("/")[0]
        self._new_id = new_id
        self._scope = scope
        self._token = token

    async def entry(self, key: str, *, as_of: Moment | None = None) -> BoardEntry | None:
        """Read one entry, None when it is not there.

        >>> seen = await board.entry("context/goal")
        >>> await board.put("context/goal", "higher", expected=seen.revision if seen else 0)

        as_of: as it was then: a version (or revision), an instant, a position. Raises NotFound (no
        such run), OutOfRange.
        """
        return (await self.entries_of(key, as_of=as_of)).get(self._full(key))

    async def get(self, key: str, default: object = None, *, as_of: Moment | None = None) -> object:
        """Read one value; `default` when it is not there.

        >>> goal = await board.get("context/goal")

        Raises what `entry` does.
        """
        found = await self.entry(key, as_of=as_of)
        return default if found is None else found.value

    async def entries_of(self, *keys: str, as_of: Moment | None = None) -> Mapping[str, BoardEntry]:
        """Read several entries as of one moment, by key; those not there are left out.

        >>> found = await board.entries_of("a:progress/percent", "b:progress/percent")

        At most 100 keys. Raises what `entry` does.
        """
        request = pb.GetEntriesRequest(
            run=self._run, keys=map(self._full, keys), as_of=as_of_message(as_of)
        )
        answer = await self._link.get(request)
        return {each.key: await self._shown(each) for each in answer.entries}

    async def put(self, key: str, value: object, *, expected: int | None = None) -> int:
        """Write one entry; return its revision. It is recorded when this returns.

        >>> revision = await board.put("context/goal", {"aim": 42}, expected=0)

        expected: the revision that the entry must have, 0 = it must not be there; the namespace
        result needs it. Raises Conflict (REVISION_MISMATCH, `current_revision` in its metadata),
        PermissionDenied (FOREIGN_SCOPE), FailedPrecondition (LEASE_LOST, RUN_CLOSED), Exhausted
        (BOARD_LIMIT), InvalidArgument.
        """
        return await self.put_all({key: value}, {} if expected is None else {key: expected})

    async def put_all(
        self, values: Mapping[str, object], expected: Mapping[str, int] | None = None
    ) -> int:
        """Write several entries, all or nothing; return the revision of all of them.

        >>> await board.put_all({"context/a": 1, "context/b": 2}, expected={"context/a": 0})

        At most 100 entries and 1 MiB. Raises what `put` does.
        """
        expected = expected or {}
        if stray := expected.keys() - values.keys():
            raise InvalidArgument(f"nothing is written to {sorted(stray)[0]!r}, which is expected")
        writes = [
            pb.EntryWrite(
                key=self._full(key),
                value=await self._payload(key, value),
                expected_revision=expected.get(key),
            )
            for key, value in values.items()
        ]
        request = pb.PutEntriesRequest(
            run=self._run, writes=writes, token=self._token, request_id=self._new_id()
        )
        return (await self._link.put(request)).revision

    async def delete(self, *keys: str, expected: int | None = None) -> int:
        """Delete entries, all or nothing; return the revision of that, 0 when none was there.

        >>> await board.delete("context/goal")

        expected: the revision that each must have. Raises what `put` does.
        """
        request = pb.DeleteEntriesRequest(
            run=self._run,
            deletions=[
                pb.EntryDeletion(key=self._full(key), expected_revision=expected) for key in keys
            ],
            token=self._token,
            request_id=self._new_id(),
        )
        return (await self._link.delete(request)).revision

    async def list(
        self, prefix: str = "", *, filter: str = "", as_of: Moment | None = None
    ) -> AsyncGenerator[BoardEntry, None]:
        """Yield the entries whose keys begin with `prefix`, in the order of their keys.

        >>> async for entry in board.list(filter="namespace = progress"):
        ...     print(entry.task, entry.value)

        filter: of namespace = NAME, task = "TEXT", writer_kind = NAME, joined by AND. as_of: as
        they were then. Raises what `entry` does, InvalidArgument.
        """
        request = pb.ListEntriesRequest(
            run=self._run,
            prefix=self._full(prefix),
            page_size=1_000,
            filter=filter,
            as_of=as_of_message(as_of),
        )
        while True:
            page = await self._link.list_page(request)
            for each in page.entries:
                yield await self._shown(each)
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    async def watch(
        self, prefix: str = "", *, after: int | None = None
    ) -> AsyncGenerator[BoardEntry, None]:
        """Yield each change of entries whose keys begin with `prefix`, in order, to the run's end.

        >>> async for entry in board.watch("a:progress/"):
        ...     print(entry.revision, entry.value)

        after: changes after that revision; without it the entries as they are come first. Goes on
        by itself after a broken connection. Raises NotFound, OutOfRange (COMPACTED: too much has
        happened since that revision; watch without one).
        """
        request = pb.WatchEntriesRequest(
            run=self._run, prefix=self._full(prefix), after_revision=after
        )
        async with aclosing(self._link.watch(request)) as answers:
            async for answer in answers:
                for each in answer.changes:
                    yield await self._shown(each)
                if answer.revision:
                    request.after_revision = answer.revision
                if answer.ended:
                    return

    @property
    def _link(self) -> BoardLink:
        return self._reach()

    def _full(self, key: str) -> str:
        if not key.startswith(":"):
            return key
        if not self._scope:
            raise InvalidArgument(f"{key!r} has no scope: name the task before the colon")
        return self._scope + key

    async def _payload(self, key: str, value: object) -> Payload:
        payload = payload_of(value, source=key, bytes_max=BLOB_BYTES_MAX)
        return await stored(self._link.blobs, self._namespace, payload)

    async def _shown(self, entry: blackboard_pb2.Entry) -> BoardEntry:
        payload = await fetched(self._link.blobs, self._namespace, entry.value)
        return entry_of(entry, value_of(payload, source=entry.key))


def entry_of(entry: blackboard_pb2.Entry, value: object) -> BoardEntry:
    """Return an entry's message as a value; what it says was read before."""
    return BoardEntry(
        key=entry.key,
        value=value,
        revision=entry.revision,
        deleted=entry.deleted,
        write_time=entry.write_time.ToDatetime(UTC),
        writer_kind=member_of(WriterKind, blackboard_pb2.WriterKind, entry.writer.kind),
        writer=entry.writer.name,
        task=entry.writer.task,
        attempt=entry.writer.attempt,
        epoch=entry.writer.epoch,
    )
