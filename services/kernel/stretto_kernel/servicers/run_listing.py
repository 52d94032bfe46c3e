"""ListRuns: its filter grammar, its pages, and the wait for nothing: a view that is behind says so.

Grammar: terms joined by AND; `state = NAME`, `labels.KEY = "VALUE"`, `display_name = "TEXT"`,
`create_time >= "2026-01-31T00:00:00Z"`. Inside the quotes a backslash takes the next character as
it is.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace

from google.protobuf.timestamp_pb2 import Timestamp
from stretto.common.v1.lease_pb2 import Position
from stretto.run.v1 import run_pb2
from stretto.run.v1 import run_service_pb2 as pb
from stretto_core.errors import Unavailable
from stretto_core.ids import Namespace, Partition

from stretto_kernel.app.page_bytes import PAGE_BYTES_MAX, count_within
from stretto_kernel.app.run_listing import RunFilter, RunList
from stretto_kernel.servicers.fields import Fields
from stretto_kernel.servicers.page_tokens import decode_token, encode_token, token_number

PAGE_DEFAULT = 50
PAGE_MAX = 1_000
FILTER_CHARACTERS_MAX = 4_000

_TERM = re.compile(
    r"\s*(state|display_name|create_time|labels\.[a-z0-9._-]{1,63})\s*(=|>=)\s*"
    r'("(?:[^"\\]|\\.)*"|[A-Z_]+)\s*'
)
_AND = re.compile(r"AND\b")


class ViewBehind(Unavailable):
    """The view has not reached the position asked for: try again."""

    reason = "VIEW_BEHIND"


class RunListing:
    """Answers ListRuns from the view of one partition."""

    def __init__(self, view: RunList, partition: Partition) -> None:
        self._view = view
        self._partition = partition

    async def list_runs(self, request: pb.ListRunsRequest) -> pb.ListRunsResponse:
        """Return a page. Raises InvalidArgument, ViewBehind, StoreDown."""
        fields = Fields()
        namespace = fields.namespace("parent", request.parent)
        size = fields.page_size(request.page_size, default=PAGE_DEFAULT, largest=PAGE_MAX)
        found = parse_filter(fields, namespace, request.filter)
        least = self._least_position(fields, request.min_position)
        fields.refuse("the request")
        found = _after_page(found, request.page_token)
        page = await self._view.list_runs(found, count_max=size)
        if page.position < least:
            raise ViewBehind("the view is behind", position=str(page.position), asked=str(least))
        listed = page.runs[: count_within((len(run.shown) for run in page.runs), PAGE_BYTES_MAX)]
        token = ""
        if page.more or len(listed) < len(page.runs):
            token = encode_token("runs", str(listed[-1].create_ns), listed[-1].run_id)
        runs = [run_pb2.Run.FromString(run.shown) for run in listed]
        position = Position(partition=self._partition, number=page.position)
        return pb.ListRunsResponse(
            runs=runs, next_page_token=token, view_position=position if page.position else None
        )

    def _least_position(self, fields: Fields, position: Position) -> int:
        if position.partition and position.partition != self._partition:
            fields.wrong("min_position.partition", "is not a partition of this kernel")
        return fields.count("min_position.number", position.number)


def parse_filter(fields: Fields, namespace: Namespace, text: str) -> RunFilter:
    """Return what the filter asks for, noting what is wrong with it."""
    found = RunFilter(namespace=namespace)
    labels: dict[str, str] = {}
    seen: set[str] = set()
    rest = fields.text("filter", text, characters_max=FILTER_CHARACTERS_MAX).strip()
    while rest:
        term = _TERM.match(rest)
        if term is None or term.group(1) in seen:
            fields.wrong("filter", f"cannot be read at {rest[:40]!r}")
            break
        name, comparison, value = term.groups()
        seen.add(name)
        if (comparison == ">=") is not (name == "create_time"):
            fields.wrong("filter", f"{name} cannot be compared by {comparison}")
        elif name == "state":
            found = replace(found, state=_state(fields, value))
        elif not value.startswith('"'):
            fields.wrong("filter", f'{name} must equal "TEXT"')
        elif name == "display_name":
            found = replace(found, display_name=_unquoted(value))
        elif name == "create_time":
            found = replace(found, since_ns=_instant_ns(fields, _unquoted(value)))
        else:
            labels[name.removeprefix("labels.")] = _unquoted(value)
        rest = rest[term.end() :]
        joined = _AND.match(rest)
        if rest and (joined is None or not rest[joined.end() :].strip()):
            fields.wrong("filter", "terms are joined by AND")
            break
        rest = rest[joined.end() :] if joined else ""
    return replace(found, labels_json=json.dumps(labels)) if labels else found


def _state(fields: Fields, value: str) -> int | None:
    name = f"RUN_STATE_{value.strip(chr(34)).removeprefix('RUN_STATE_')}"
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


def _unquoted(value: str) -> str:
    return re.sub(r"\\(.)", r"\1", value[1:-1])


def _after_page(found: RunFilter, page_token: str) -> RunFilter:
    if not page_token:
        return found
    create_ns, run_id = decode_token("page_token", "runs", page_token, part_count=2)
    return replace(found, after=(token_number("page_token", create_ns), run_id))
