"""What chunks become: positions, repeats, limits; and the tail that followers share."""

from __future__ import annotations

from stretto.tasklog.v1.task_log_pb2 import LOG_STREAM_STDOUT
from stretto_core.ids import RunId, TaskName
from stretto_kernel.tasklog.book import Book, LeaseLimits
from stretto_kernel.tasklog.entries import Chunk, Entry, Heads, LeaseHead, LeaseId, Written
from stretto_kernel.tasklog.tails import TAIL_ENTRIES_MAX, Tail, Tails

RUN = RunId("r")
A, B = LeaseId(RUN, TaskName("a"), 1), LeaseId(RUN, TaskName("b"), 1)


def written(lease: LeaseId, *chunks: tuple[int, bytes]) -> Written:
    made = [Chunk(sequence, LOG_STREAM_STDOUT, 0, content) for sequence, content in chunks]
    return Written(lease, 1, 1, made)


def book(heads: Heads | None = None, *, bytes_max: int = 100, entries_max: int = 100) -> Book:
    made = Book(LeaseLimits(bytes_max=bytes_max, entries_max=entries_max))
    made.learn([A, B], heads or Heads({}, {}))
    return made


def entry(position: int, content: bytes = b"x", lease: LeaseId = A) -> Entry:
    return Entry(position, lease, 1, 1, LOG_STREAM_STDOUT, 0, content, 0, LeaseHead())


def test_the_leases_of_a_run_share_its_positions() -> None:
    found = book(Heads({RUN: 7}, {A: LeaseHead(3, 3, 3)}))
    entries = found.enter(written(A, (3, b"repeat"), (5, b"new"))) + found.enter(
        written(B, (1, b"b"))
    )
    assert [(one.position, one.lease, one.content) for one in entries] == [
        (8, A, b"new"),
        (9, B, b"b"),
    ]


def test_only_what_is_not_known_is_asked_for() -> None:
    found = book()
    other = LeaseId(RunId("s"), TaskName("a"), 1)
    assert found.unknown([A, other, other]) == [other]
    found.forget([B])
    assert found.unknown([A, B]) == [A, B], "of a run in doubt nothing is known"


def test_the_last_entry_of_a_lease_says_that_the_rest_is_cut() -> None:
    found = book(bytes_max=5)
    entries = found.enter(written(A, (1, b"123"), (2, b"456"), (3, b"7")))
    assert [(one.content, one.truncated) for one in entries] == [(b"123", False), (b"45", True)]
    assert found.is_truncated(A)
    assert found.enter(written(A, (4, b"8"))) == []
    full = book(bytes_max=6)
    assert [one.truncated for one in full.enter(written(A, (1, b"123456")))] == [False]
    assert [one.content for one in full.enter(written(A, (2, b"7")))] == [b""]
    assert full.is_truncated(A)


def test_so_are_entries_beyond_their_number() -> None:
    found = book(entries_max=2)
    entries = found.enter(written(A, (1, b""), (2, b""), (3, b"")))
    assert [one.truncated for one in entries] == [False, True]


def test_a_tail_has_what_came_since_it_began() -> None:
    tail = Tail()
    assert tail.after(0) is None, "what was stored before is not known here"
    tail.begin(4)
    assert tail.after(4) == []
    assert tail.after(3) is None
    tail.add([entry(5), entry(6)])
    assert [one.position for one in tail.after(5) or ()] == [6]
    assert tail.after(6) == []


def test_a_tail_begins_anew_after_a_hole() -> None:
    tail = Tail()
    tail.add([entry(5)])
    tail.add([entry(9)])
    assert tail.after(5) is None
    assert [one.position for one in tail.after(8) or ()] == [9]


def test_a_tail_keeps_the_newest() -> None:
    tail = Tail()
    tail.add([entry(position) for position in range(1, TAIL_ENTRIES_MAX + 11)])
    assert tail.after(9) is None
    assert tail.after(10) is not None


def test_entries_go_to_the_tail_of_their_run_only() -> None:
    tails = Tails()
    other = LeaseId(RunId("s"), TaskName("a"), 1)
    with tails.following(RUN) as tail:
        tails.publish([entry(1), entry(1, lease=other), entry(2)])
        assert [one.position for one in tail.after(0) or ()] == [1, 2]
    with tails.following(RUN) as tail:
        assert tail.after(0) is None, "nobody followed meanwhile"
