"""ListRuns: its filter grammar and its pages.

Terms: `state = NAME`, `labels.KEY = "VALUE"`, `display_name = "TEXT"`,
`create_time >= "2026-01-31T00:00:00Z"` and `create_time < "..."`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

from google.protobuf.timestamp_pb2 import Timestamp
from stretto.common.v1.lease_pb2 import Position
from stretto.run.v1 import run_pb2
from stretto.run.v1 import run_service_pb2 as pb
from stretto_core.eventlog.port import EventLog
from stretto_core.ids import Namespace

from stretto_kernel.app.artifact_listing import ArtifactList
from stretto_kernel.app.attempt_listing import AttemptList
from stretto_kernel.app.page_bytes import PAGE_BYTES_MAX, count_within
from stretto_kernel.app.run_listing import RunFilter, RunList
from stretto_kernel.app.usage_reading import UsageView
from stretto_kernel.projections.run_index import RUN_INDEX
from stretto_kernel.projections.view_reach import ViewReach
from stretto_kernel.servicers.artifact_listing import ArtifactListing
from stretto_kernel.servicers.attempt_listing import AttemptListing
from stretto_kernel.servicers.fields import Fields
from stretto_kernel.servicers.filter_terms import filter_terms
from stretto_kernel.servicers.masks import masked
from stretto_kernel.servicers.page_tokens import decode_token, encode_token, token_number
from stretto_kernel.servicers.usage_reading import UsageReading
from stretto_kernel.servicers.view_positions import least_position

PAGE_DEFAULT = 50
PAGE_MAX = 1_000
_NAMES = r"state|display_name|create_time|labels\.[a-z0-9._-]{1,63}"


@dataclass(frozen=True, slots=True)
class ListedViews:
    """The views that lists are read from."""

    runs: RunList
    attempts: AttemptList
    artifacts: ArtifactList
    usage: UsageView


class RunListing:
    """Answers ListRuns from the view of the partition whose log is given.

    attempts, artifacts, usage: answer ListAttempts, ListArtifacts, GetUsage.
    """

    def __init__(self, views: ListedViews, log: EventLog, reach: ViewReach) -> None:
        self._view = views.runs
        self._partition = log.partition
        self._reach = reach
        self.attempts = AttemptListing(views.attempts, log.partition, reach)
        self.artifacts = ArtifactListing(views.artifacts, log, reach)
        self.usage = UsageReading(views.usage, log, reach)

    async def list_runs(self, request: pb.ListRunsRequest) -> pb.ListRunsResponse:
        """Return a page. Raises InvalidArgument, BeyondTheLog, ViewBehind, StoreDown."""
        fields = Fields()
        namespace = fields.namespace("parent", request.parent)
        size = fields.page_size(request.page_size, default=PAGE_DEFAULT, largest=PAGE_MAX)
        found = parse_filter(fields, namespace, request.filter)
        found = _ordered(fields, found, request.order_by)
        least = least_position(fields, request.min_position, self._partition)
        fields.mask("read_mask", request.read_mask, run_pb2.Run.DESCRIPTOR)
        fields.refuse("the request")
        found = _after_page(found, request.page_token)
        page = await self._reach.read(
            least, [RUN_INDEX], lambda: self._view.list_runs(found, count_max=size)
        )
        listed = page.runs[: count_within((len(run.shown) for run in page.runs), PAGE_BYTES_MAX)]
        token = ""
        if page.more or len(listed) < len(page.runs):
            kind = "oldest runs" if found.oldest_first else "runs"
            token = encode_token(kind, str(listed[-1].create_ns), listed[-1].run_id)
        runs = [masked(run_pb2.Run.FromString(run.shown), request.read_mask) for run in listed]
        position = Position(partition=self._partition, number=page.position)
        return pb.ListRunsResponse(
            runs=runs, next_page_token=token, view_position=position if page.position else None
        )


def parse_filter(fields: Fields, namespace: Namespace, text: str) -> RunFilter:
    """Return what the filter asks for, noting what is wrong with it."""
    found = RunFilter(namespace=namespace)
    labels: dict[str, str] = {}
    for term in filter_terms(fields, text, _NAMES):
        name, value = term.name, term.value
        if (term.comparison != "=") is not (name == "create_time"):
            fields.wrong("filter", f"{name} cannot be compared by {term.comparison}")
        elif name == "state":
            found = replace(found, state=_state(fields, value))
        elif not term.quoted:
            fields.wrong("filter", f'{name} must equal "TEXT"')
        elif name == "display_name":
            found = replace(found, display_name=value)
        elif name == "create_time":
            instant_ns = _instant_ns(fields, value)
            if term.comparison == ">=":
                found = replace(found, since_ns=instant_ns)
            else:
                found = replace(found, before_ns=instant_ns)
        else:
            labels[name.removeprefix("labels.")] = value
    return replace(found, labels_json=json.dumps(labels)) if labels else found


def _state(fields: Fields, value: str) -> int | None:
    name = f"RUN_STATE_{value.removeprefix('RUN_STATE_')}"
    number = run_pb2.RunState.items()
    for known, code in number:
        if known == name and code:
            return code
    fields.wrong("filter", f"{value[:40]} is no state of a run")
    return None


def _instant_ns(fields: Fields, text: str) -> int:
    stamp = Timestamp()
    try:
        stamp.FromJsonString(text)
    except ValueError:
        fields.wrong("filter", f"{text[:40]!r} is no instant like 2026-01-31T00:00:00Z")
    return stamp.ToNanoseconds()


def _ordered(fields: Fields, found: RunFilter, order_by: str) -> RunFilter:
    words = order_by.split()
    if words not in ([], ["create_time"], ["create_time", "desc"]):
        fields.wrong("order_by", 'must be "create_time desc" or "create_time"')
    return replace(found, oldest_first=words == ["create_time"])


def _after_page(found: RunFilter, page_token: str) -> RunFilter:
    if not page_token:
        return found
    kind = "oldest runs" if found.oldest_first else "runs"
    create_ns, run_id = decode_token("page_token", kind, page_token, part_count=2)
    return replace(found, after=(token_number("page_token", create_ns), run_id))
