"""What can be asked of a run's blackboard: load, decide, append, answer.

Values come in parsed; entries go out as they stood at the answered version. Reads here see every
write acknowledged before them. Knows no gRPC, and of leases only who checks their tokens.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple, Protocol

from stretto.blackboard.v1 import blackboard_pb2
from stretto.common.v1.lease_pb2 import LeaseToken
from stretto_core.errors import Refusal
from stretto_core.ids import Namespace, RunId

from stretto_kernel.app.asking import Answered, Decided, ask
from stretto_kernel.app.blob_calls import BlobCalls
from stretto_kernel.app.hosted_run import HostedRun
from stretto_kernel.app.run_calls import Caller, RunCalls
from stretto_kernel.app.stream_host import StreamHost
from stretto_kernel.domain.run.blackboard_keys import split_key
from stretto_kernel.domain.run.blackboard_state import BoardEntry
from stretto_kernel.domain.run.blob_names import in_payload
from stretto_kernel.domain.run.commands import DeleteEntries, PutEntries


class HolderFence(Protocol):
    """Who knows the secrets of leases, and notes what their holders were refused."""

    def check(self, run: HostedRun, token: LeaseToken) -> None:
        """Refuse a token that was not given so. Raises WrongSecret, LeaseLost."""
        ...

    def note_refused(self, run: HostedRun, token: LeaseToken, refusal: Refusal) -> None:
        """A write under the token was refused."""
        ...


class BoardWrite(NamedTuple):
    """A write as parsed. token: of the lease it is made under; None = of none."""

    namespace: Namespace
    run_id: RunId
    command: PutEntries | DeleteEntries
    token: LeaseToken | None
    caller: Caller


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryQuery:
    """Which entries, in the order of their keys.

    after_key: those after it. task: "" = of any scope. board_namespace: "" = any. writer_kind: 0 =
    any.
    """

    prefix: str = ""
    after_key: str = ""
    task: str = ""
    board_namespace: str = ""
    writer_kind: blackboard_pb2.WriterKind.ValueType = blackboard_pb2.WRITER_KIND_UNSPECIFIED

    def matches(self, entry: BoardEntry) -> bool:
        """Whether the entry is one of them."""
        if not entry.key.startswith(self.prefix) or entry.key <= self.after_key:
            return False
        if self.writer_kind not in (entry.writer.kind, blackboard_pb2.WRITER_KIND_UNSPECIFIED):
            return False
        if not (self.task or self.board_namespace):
            return True
        task, namespace = split_key(entry.key)
        return self.task in ("", task) and self.board_namespace in ("", namespace)


class EntryPage(NamedTuple):
    """Some entries as of a version of their run, and whether there are more."""

    version: int
    entries: Sequence[BoardEntry]
    more: bool


class BoardCalls:
    """The calls on the blackboards of one ownership of a partition."""

    def __init__(
        self, host: StreamHost, runs: RunCalls, blobs: BlobCalls, fence: HolderFence
    ) -> None:
        self._host = host
        self._runs = runs
        self._blobs = blobs
        self._fence = fence
        self.write_count = 0
        self.refused_counts: Counter[str] = Counter()
        """Refused writes by their reason."""

    async def write(self, write: BoardWrite) -> Answered[int]:
        """Change entries, all or nothing; return their revision, 0 when nothing was there to.

        A repeated request gets the first answer. Raises RunNotFound, BlobMissing, WrongSecret and
        what the decider refuses.
        """
        try:
            answered = await self._write(write)
        except Refusal as refusal:
            self.refused_counts[refusal.reason_word] += 1
            raise
        self.write_count += 1
        return answered

    async def _write(self, write: BoardWrite) -> Answered[int]:
        token, command = write.token, write.command
        if isinstance(command, PutEntries) and (
            blobs := {blob for each in command.writes for blob in in_payload(each.value)}
        ):
            found = await self._runs.find(write.namespace, write.run_id)
            if token is not None:  # A stranger learns nothing of blobs.
                self._fence.check(found, token)
            if not found.is_shredded:
                await self._blobs.require(write.namespace, blobs, found.state.key_id)

        def question(run: HostedRun) -> Decided[int]:
            if token is not None:
                self._fence.check(run, token)
            try:
                own_facts = self._host.take(run, command, self._runs.cause(run, write.caller))
            except Refusal as refusal:
                if token is not None:
                    self._fence.note_refused(run, token, refusal)
                raise
            return Decided(run.state.requests.version_of(command.request_id), own_facts)

        return await ask(self._host, self._runs.finder(write.namespace, write.run_id), question)

    async def get(self, namespace: Namespace, run_id: RunId, keys: Iterable[str]) -> EntryPage:
        """Return those of some entries that are there. Raises RunNotFound."""

        def question(run: HostedRun) -> Decided[EntryPage]:
            table = entries_of(run)
            found = [table[key] for key in keys if key in table]
            return Decided(EntryPage(run.decided, found, more=False), own_facts=False)

        answered = await ask(self._host, self._runs.finder(namespace, run_id), question)
        return answered.answer

    async def list_entries(
        self, namespace: Namespace, run_id: RunId, query: EntryQuery, *, count_max: int
    ) -> EntryPage:
        """Return a page of entries. Raises RunNotFound."""

        def question(run: HostedRun) -> Decided[EntryPage]:
            found = list(islice(_matching(run, query), count_max + 1))
            page = EntryPage(run.decided, found[:count_max], more=len(found) > count_max)
            return Decided(page, own_facts=False)

        answered = await ask(self._host, self._runs.finder(namespace, run_id), question)
        return answered.answer


def _matching(run: HostedRun, query: EntryQuery) -> Iterator[BoardEntry]:
    """Yield the entries that are asked for in the order of their keys, from where they begin."""
    table, keys = entries_of(run), run.board_keys()
    begin = max(bisect_left(keys, query.prefix), bisect_right(keys, query.after_key))
    for key in islice(keys, begin, None):
        if not key.startswith(query.prefix):
            return
        if query.matches(table[key]):
            yield table[key]


def entries_of(run: HostedRun) -> dict[str, BoardEntry]:
    """Return the table of entries as decided; not to be changed."""
    board = run.state.board
    return {} if board is None else board.entries


def to_entry(run_name: str, entry: BoardEntry) -> blackboard_pb2.Entry:
    """Return an entry as the contract has it. run_name: namespaces/*/runs/*."""
    shown = blackboard_pb2.Entry(
        run=run_name,
        key=entry.key,
        revision=entry.revision,
        value=entry.value,
        writer=entry.writer,
        deleted=entry.value is None,
    )
    shown.write_time.FromNanoseconds(entry.written_ns)
    return shown
