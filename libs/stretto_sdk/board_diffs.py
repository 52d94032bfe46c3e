"""What lies between two moments of a blackboard: which entries differ, and the facts that did it.

Only entries that a fact in between names are read, so it costs what happened, however large the
blackboard is; large values are not fetched.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from stretto.blackboard.v1 import blackboard_service_pb2 as pb

from stretto_sdk.blackboard import BoardEntry, entry_of
from stretto_sdk.board_link import BoardLink
from stretto_sdk.moments import as_of_message
from stretto_sdk.runs import Event, value_of

KEYS_MAX = 100
"""So many entries are read by one call."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BoardDiff:
    """An entry that differs. before, after: None = it was, or is, not there.

    A value too large to stand here is a Blob. versions: of the facts that changed it.
    """

    key: str
    before: BoardEntry | None
    after: BoardEntry | None
    versions: tuple[int, ...]


async def board_diffs(
    link: BoardLink, run: str, events: Iterable[Event], *, first: int, last: int
) -> tuple[BoardDiff, ...]:
    """Return which entries of a run differ between two versions, by key, as `events` say.

    run: namespaces/*/runs/*. events: all in between. Raises what reading entries does.
    """
    versions: dict[str, list[int]] = {}
    for event in events:
        for key in _keys_of(event):
            versions.setdefault(key, []).append(event.version)
    keys = sorted(versions)
    found = []
    for begin in range(0, len(keys), KEYS_MAX):
        part = keys[begin : begin + KEYS_MAX]
        were, are = await _entries(link, run, part, first), await _entries(link, run, part, last)
        found += [
            BoardDiff(key=key, before=were.get(key), after=are.get(key), versions=(*versions[key],))
            for key in part
            if key in were or key in are  # What came and went in between makes no difference.
        ]
    return tuple(found)


async def _entries(
    link: BoardLink, run: str, keys: Sequence[str], version: int
) -> Mapping[str, BoardEntry]:
    request = pb.GetEntriesRequest(run=run, keys=keys, as_of=as_of_message(version))
    answer = await link.get(request)
    return {entry.key: entry_of(entry, value_of(entry.value)) for entry in answer.entries}


def _keys_of(event: Event) -> list[str]:
    match event.type.rpartition(".")[2]:
        case "BoardEntriesWritten":
            written = event.body.get("entries", ())
            assert isinstance(written, list), "as the contract has it"
            return [entry["key"] for entry in written]
        case "BoardEntriesDeleted":
            keys = event.body.get("keys", ())
            assert isinstance(keys, list), "as the contract has it"
            return keys
        case _:
            return []
