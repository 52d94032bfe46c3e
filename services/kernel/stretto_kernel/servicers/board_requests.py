"""Parses the requests of BlackboardService: every field, every limit, all violations at once.

Keys and values of writes are judged by the decider.
"""

from __future__ import annotations

from typing import NamedTuple

from stretto.blackboard.v1 import blackboard_pb2
from stretto.blackboard.v1 import blackboard_service_pb2 as pb
from stretto.common.v1.lease_pb2 import LeaseToken
from stretto.common.v1.payload_pb2 import Payload
from stretto.common.v1.principal_pb2 import (
    PRINCIPAL_KIND_KERNEL,
    PRINCIPAL_KIND_VERIFIER,
    PRINCIPAL_KIND_WORKER,
    Principal,
)
from stretto_core.ids import Namespace, Partition, RunId

from stretto_kernel.app.board_calls import BoardWrite, EntryQuery
from stretto_kernel.app.moments import Moment
from stretto_kernel.app.run_calls import Caller
from stretto_kernel.dispatch.assignments import parse_work_item
from stretto_kernel.domain.run.blackboard_keys import NAMESPACES, check_key, check_prefix
from stretto_kernel.domain.run.canonical import digest_of
from stretto_kernel.domain.run.commands import (
    DeleteEntries,
    EntryChange,
    EntryWrite,
    LeaseHolder,
    PutEntries,
)
from stretto_kernel.servicers.as_of import parse_as_of
from stretto_kernel.servicers.asked import Asked
from stretto_kernel.servicers.fields import Fields
from stretto_kernel.servicers.filter_terms import filter_terms

KEYS_MAX = 100
PAGE_DEFAULT = 100
PAGE_MAX = 1_000
REVISION_MAX = (1 << 63) - 1
NULL = Payload(json="null")
_KINDS = {
    PRINCIPAL_KIND_WORKER: blackboard_pb2.WRITER_KIND_WORKER,
    PRINCIPAL_KIND_VERIFIER: blackboard_pb2.WRITER_KIND_VERIFIER,
    PRINCIPAL_KIND_KERNEL: blackboard_pb2.WRITER_KIND_KERNEL,
}


class AskedBoard(NamedTuple):
    """Which board, and as of which moment; None = as it is."""

    namespace: Namespace
    run_id: RunId
    moment: Moment | None = None


def parse_put(request: pb.PutEntriesRequest, asked: Asked) -> BoardWrite:
    """Return the write if all around its entries is right. Raises InvalidArgument."""
    writes = tuple(
        EntryWrite(
            key=write.key,
            expected_revision=_expected(write),
            value=write.value if write.value.WhichOneof("value") else NULL,
        )
        for write in request.writes
    )
    said = tuple((each.key, each.expected_revision, each.value) for each in writes)
    head = _parse_head(request, asked, "PutEntries", said)
    command = PutEntries(
        now_ns=asked.now_ns,
        request_id=head.fields.request_id(request.request_id),
        request_digest=head.caller.request_digest,
        writer=head.writer,
        writes=writes,
    )
    return head.write_of(command)


def parse_delete(request: pb.DeleteEntriesRequest, asked: Asked) -> BoardWrite:
    """Return the deletion if all around its keys is right. Raises InvalidArgument."""
    deletions = tuple(
        EntryChange(key=each.key, expected_revision=_expected(each)) for each in request.deletions
    )
    said = tuple((each.key, each.expected_revision) for each in deletions)
    head = _parse_head(request, asked, "DeleteEntries", said)
    command = DeleteEntries(
        now_ns=asked.now_ns,
        request_id=head.fields.request_id(request.request_id),
        request_digest=head.caller.request_digest,
        writer=head.writer,
        deletions=deletions,
    )
    return head.write_of(command)


def parse_get(request: pb.GetEntriesRequest, partition: Partition) -> tuple[AskedBoard, list[str]]:
    """Return what is asked for. Raises InvalidArgument."""
    fields = Fields()
    namespace, run_id = fields.run("run", request.run)
    if not 1 <= len(request.keys) <= KEYS_MAX:
        fields.wrong("keys", f"must be 1-{KEYS_MAX}")
    else:
        for index, key in enumerate(request.keys):
            check_key(fields, f"keys[{index}]", key)
    moment = parse_as_of(fields, request.as_of, partition)
    fields.refuse("the request")
    return AskedBoard(namespace, run_id, moment), list(dict.fromkeys(request.keys))


def parse_list(
    request: pb.ListEntriesRequest, partition: Partition
) -> tuple[AskedBoard, EntryQuery, int]:
    """Return what is asked for, and how much at most. Raises InvalidArgument."""
    fields = Fields()
    namespace, run_id = fields.run("run", request.run)
    prefix = check_prefix(fields, "prefix", request.prefix)
    size = fields.page_size(request.page_size, default=PAGE_DEFAULT, largest=PAGE_MAX)
    task, board_namespace, writer_kind = _parse_filter(fields, request.filter)
    moment = parse_as_of(fields, request.as_of, partition)
    fields.refuse("the request")
    query = EntryQuery(
        prefix=prefix, task=task, board_namespace=board_namespace, writer_kind=writer_kind
    )
    return AskedBoard(namespace, run_id, moment), query, size


def parse_watch(request: pb.WatchEntriesRequest) -> tuple[AskedBoard, str, int | None]:
    """Return what to follow, and after which revision. Raises InvalidArgument."""
    fields = Fields()
    namespace, run_id = fields.run("run", request.run)
    prefix = check_prefix(fields, "prefix", request.prefix)
    after: int | None = None
    if request.HasField("after_revision"):
        after = fields.count("after_revision", request.after_revision)
    fields.refuse("the request")
    return AskedBoard(namespace, run_id), prefix, after


class _Head(NamedTuple):
    """What puts and deletions share. fields: what was found wrong so far."""

    fields: Fields
    board: AskedBoard
    token: LeaseToken | None
    writer: LeaseHolder | blackboard_pb2.Writer
    caller: Caller

    def write_of(self, command: PutEntries | DeleteEntries) -> BoardWrite:
        """Return the whole. Raises InvalidArgument."""
        self.fields.refuse("the request")
        return BoardWrite(self.board.namespace, self.board.run_id, command, self.token, self.caller)


def _parse_head(
    request: pb.PutEntriesRequest | pb.DeleteEntriesRequest,
    asked: Asked,
    call: str,
    said: tuple[object, ...],
) -> _Head:
    fields = Fields()
    namespace, run_id = fields.run("run", request.run)
    writer: LeaseHolder | blackboard_pb2.Writer = _writer_of(asked.principal)
    token: LeaseToken | None = None
    if request.HasField("token"):
        token = request.token
        named = parse_work_item(token.work_item)
        if named is None or named[:2] != (namespace, run_id):
            fields.wrong("token.work_item", "must be a task of the run")
        else:
            writer = LeaseHolder(named[2], token.epoch)
    holder = None if token is None else (token.work_item, token.epoch)
    digest = digest_of(call, request.run, holder, said)
    caller = asked.caller(request.request_id, digest)
    return _Head(fields, AskedBoard(namespace, run_id), token, writer, caller)


def _writer_of(principal: Principal) -> blackboard_pb2.Writer:
    kind = _KINDS.get(principal.kind, blackboard_pb2.WRITER_KIND_OPERATOR)
    return blackboard_pb2.Writer(kind=kind, name=principal.name)


def _expected(change: pb.EntryWrite | pb.EntryDeletion) -> int | None:
    return change.expected_revision if change.HasField("expected_revision") else None


def _parse_filter(
    fields: Fields, text: str
) -> tuple[str, str, blackboard_pb2.WriterKind.ValueType]:
    task = namespace = ""
    kind = blackboard_pb2.WRITER_KIND_UNSPECIFIED
    for name, comparison, value, quoted in filter_terms(fields, text, "namespace|task|writer_kind"):
        if comparison != "=":
            fields.wrong("filter", f"{name} cannot be compared by {comparison}")
        elif name == "task":
            task = value
            if not quoted or not value:
                fields.wrong("filter", 'task must equal "TEXT"')
        elif name == "namespace":
            namespace = value
            if value not in NAMESPACES:
                fields.wrong("filter", f"{value[:40]} is no namespace of a blackboard")
        else:
            kind = _kind(fields, value)
    return task, namespace, kind


def _kind(fields: Fields, value: str) -> blackboard_pb2.WriterKind.ValueType:
    name = f"WRITER_KIND_{value.removeprefix('WRITER_KIND_')}"
    for known, code in blackboard_pb2.WriterKind.items():
        if known == name and code:
            return code
    fields.wrong("filter", f"{value[:40]} is no kind of writer")
    return blackboard_pb2.WRITER_KIND_UNSPECIFIED
