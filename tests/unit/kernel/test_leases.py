"""The lease table on a clock of its own, and the secrets of leases."""

from __future__ import annotations

from typing import Any

from stretto.common.v1.payload_pb2 import Payload
from stretto_core.clock import NS_PER_S
from stretto_core.eventlog.recorded import LeaseKeys
from stretto_core.ids import RunId, SessionId, TaskName, WorkerId
from stretto_kernel.dispatch.lease_keys import SECRET_BYTES, is_lease_secret, lease_secret
from stretto_kernel.dispatch.lease_table import Lease, LeaseTable


def lease(task: str = "a", **fields: Any) -> Lease:
    given = {
        "run_id": RunId("r"),
        "task": TaskName(task),
        "epoch": 1,
        "worker_id": WorkerId("w"),
        "session_id": SessionId("s1"),
        "ttl_ns": 10 * NS_PER_S,
        "expires_mono_ns": 10 * NS_PER_S,
        **fields,
    }
    return Lease(**given)


def test_a_lease_expires_once_and_stays_until_the_fact_is_recorded() -> None:
    table = LeaseTable()
    table.open(lease())
    assert table.take_expired(10 * NS_PER_S - 1, 10) == []
    (expired,) = table.take_expired(10 * NS_PER_S, 10)
    assert table.take_expired(99 * NS_PER_S, 10) == []
    assert table.find(expired.key, 1) is expired, "a holder that comes first is still in time"


def test_a_renewal_gives_a_whole_ttl() -> None:
    table = LeaseTable()
    held = lease(reclaimed=False)
    table.open(held)
    table.renew(held, 9 * NS_PER_S)
    assert held.acknowledged and held.reclaimed
    assert table.take_expired(18 * NS_PER_S, 10) == []
    assert table.next_expiry_mono_ns() == 19 * NS_PER_S


def test_leases_are_found_by_item_run_process_and_worker() -> None:
    table = LeaseTable()
    first, second = lease("a"), lease("b", session_id=SessionId("s2"))
    other = lease("c", run_id=RunId("q"), worker_id=WorkerId("x"), session_id=SessionId("s3"))
    for one in (first, second, other):
        table.open(one)
    assert table.find(first.key, 1) is first and table.find(first.key, 2) is None
    assert table.of_run(RunId("r")) == [first, second]
    assert table.held_by_session(SessionId("s2")) == [second]
    assert table.held_by_other_sessions(WorkerId("w"), SessionId("s2")) == [first]
    assert table.newest_session(WorkerId("w")) == "s2"
    for one in (first, second, other):
        assert table.close(one.key) is one and table.close(one.key) is None
    assert len(table) == 0 and table.next_expiry_mono_ns() is None
    assert table.newest_session(WorkerId("w")) is None


def test_a_newer_lease_of_the_same_item_takes_its_place() -> None:
    table = LeaseTable()
    table.open(lease())
    newer = lease(epoch=2, session_id=SessionId("s2"), expires_mono_ns=20 * NS_PER_S)
    table.open(newer)
    assert table.held_by_session(SessionId("s1")) == []
    assert table.take_expired(15 * NS_PER_S, 10) == []


def test_time_given_to_all_ends_no_lease_early() -> None:
    table = LeaseTable()
    long_lived = lease("b", expires_mono_ns=50 * NS_PER_S)
    table.open(lease())
    table.open(long_lived)
    table.give_time(20 * NS_PER_S)
    assert table.next_expiry_mono_ns() == 20 * NS_PER_S
    assert long_lived.expires_mono_ns == 50 * NS_PER_S


def test_changed_details_are_due_at_most_once_in_ten_seconds() -> None:
    table, held = LeaseTable(), lease()
    table.open(held)
    one, two = Payload(json="1"), Payload(json="2")
    assert table.note_details(held, one, 0)
    assert not table.note_details(held, one, 60 * NS_PER_S), "unchanged"
    assert table.note_details(held, two, 60 * NS_PER_S)
    assert not table.note_details(held, one, 69 * NS_PER_S), "too soon"
    assert table.note_details(held, one, 70 * NS_PER_S), "the newest is not forgotten"
    assert held.details == one


def test_a_secret_belongs_to_one_item_and_epoch() -> None:
    keys = LeaseKeys(b"k" * 32)
    secret = lease_secret(keys.current, "item", 1)
    assert len(secret) == SECRET_BYTES
    assert is_lease_secret(keys, "item", 1, secret)
    for item, epoch, presented in (
        ("other", 1, secret),
        ("item", 2, secret),
        ("item", 1, secret[:-1]),
        ("item", 1, b""),
    ):
        assert not is_lease_secret(keys, item, epoch, presented)


def test_a_secret_survives_one_rotation_of_the_key() -> None:
    old, new, newest = b"a" * 32, b"b" * 32, b"c" * 32
    secret = lease_secret(old, "item", 1)
    assert is_lease_secret(LeaseKeys(new, old), "item", 1, secret)
    assert not is_lease_secret(LeaseKeys(newest, new), "item", 1, secret)
