"""What the edge parses: settings, filters, tokens, and the window in which ids are surely new."""

from __future__ import annotations

import asyncio

import pytest
from stretto_core.clock import NS_PER_S
from stretto_core.clock.manual import ManualClock
from stretto_core.errors import InvalidArgument
from stretto_core.eventlog.memory import MemoryLog, MemoryStore
from stretto_core.ids import Namespace, Partition, RequestId, RunId, StreamId, derive_run_id
from stretto_core.ids.seeded import SeededIds
from stretto_kernel.app.presence import RunPresence
from stretto_kernel.servicers.fields import Fields
from stretto_kernel.servicers.page_tokens import (
    decode_cursor,
    decode_token,
    encode_cursor,
    encode_token,
)
from stretto_kernel.servicers.run_listing import parse_filter
from stretto_kernel.settings import Settings, SettingsError

P0 = Partition("p0")
DSN = {"STRETTO_POSTGRES_DSN": "postgresql://secret@host/db"}


def test_settings_come_from_the_environment_and_show_no_secret() -> None:
    settings = Settings.from_env({**DSN, "STRETTO_QUEUE_LIMITS": "report=1, net=4"})
    assert settings.queue_limits == {"report": 1, "net": 4}
    assert settings.partition == "p0"
    assert "secret" not in repr(settings)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("STRETTO_POSTGRES_DSN", ""),
        ("STRETTO_LISTEN", "nowhere"),
        ("STRETTO_LISTEN", "host:70000"),
        ("STRETTO_PARTITION", "q0"),
        ("STRETTO_QUEUE_LIMITS", "a=b"),
        ("STRETTO_QUEUE_LIMITS", "a b=1"),
        ("STRETTO_LOG_FORMAT", "xml"),
        ("STRETTO_DRAIN_GRACE_S", "-1"),
        ("STRETTO_DRAIN_GRACE_S", "soon"),
    ],
)
def test_a_wrong_setting_is_named(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=name):
        Settings.from_env({**DSN, name: value})


def test_a_filter_is_read_term_by_term() -> None:
    fields = Fields()
    text = r'state = RUNNING AND labels.a.b = "x \" AND y" AND display_name="d"'
    found = parse_filter(fields, Namespace("default"), text)
    fields.refuse("the request")
    assert (found.state, found.display_name) == (3, "d")
    assert found.labels_json == r'{"a.b": "x \" AND y"}'


@pytest.mark.parametrize(
    "text",
    [
        "nonsense",
        "state = NOBODY",
        "state = UNSPECIFIED",
        "state = RUNNING state = FAILED",
        "state = RUNNING AND",
        "AND state = RUNNING",
        "state = RUNNING AND state = FAILED",
        'labels.A = "x"',
        "display_name = BARE",
        'display_name = "open',
        'create_time >= "yesterday"',
        'create_time = "2026-01-31T00:00:00Z"',
        'display_name >= "a"',
    ],
)
def test_a_wrong_filter_is_refused(text: str) -> None:
    fields = Fields()
    parse_filter(fields, Namespace("default"), text)
    with pytest.raises(InvalidArgument):
        fields.refuse("the request")


def test_tokens_come_back_as_they_were_and_others_are_refused() -> None:
    assert decode_token("t", "runs", encode_token("runs", "1", "ü"), part_count=2) == ("1", "ü")
    assert decode_cursor("c", "") == {}
    places = {P0: 7, Partition("p1"): 9}
    assert decode_cursor("c", encode_cursor(places)) == places
    for token in ("x", "%%%", encode_token("tasks", "1", "2"), encode_token("runs", "1"), "ä"):
        with pytest.raises(InvalidArgument):
            decode_token("t", "runs", token, part_count=2)
    with pytest.raises(InvalidArgument):
        decode_cursor("c", encode_token("cursor", "p0=seven"))


async def test_only_ids_of_this_ownership_and_window_are_surely_new() -> None:
    clock = ManualClock()
    ids = SeededIds(1, clock)
    log = MemoryLog(MemoryStore(P0))

    def run_id() -> RunId:
        return derive_run_id(P0, Namespace("default"), RequestId(ids.uuid7()))

    before = run_id()
    presence = RunPresence(log, clock)
    clock.advance(NS_PER_S)
    fresh = run_id()
    assert presence.is_surely_new(fresh) and not presence.is_surely_new(before)
    presence.note_started(fresh)
    assert not presence.is_surely_new(fresh)
    later = run_id()
    clock.advance(61 * NS_PER_S)
    assert not presence.is_surely_new(later), "older than the window"
    assert not presence.is_surely_new(derive_run_id(P0, Namespace("n"), RequestId("no uuid")))
    future = run_id()
    clock.step_wall(-NS_PER_S)
    assert not presence.is_surely_new(future), "its window has not begun"


async def test_look_ups_of_one_moment_share_a_statement() -> None:
    class CountingLog(MemoryLog):
        statement_count = 0

        async def existing_streams(self, streams: object) -> frozenset[StreamId]:
            self.statement_count += 1
            await asyncio.sleep(0)
            return frozenset()

    log = CountingLog(MemoryStore(P0))
    presence = RunPresence(log, ManualClock())
    found = await asyncio.gather(*(presence.exists(RunId(f"p0-{n}")) for n in range(50)))
    assert found == [False] * 50
    assert log.statement_count == 1
