"""What bodies wrote and the kernel does not have: chunks, limits, what is dropped."""

from __future__ import annotations

from stretto.common.v1.lease_pb2 import LeaseToken
from stretto.tasklog.v1.task_log_pb2 import LOG_STREAM_STDERR, LOG_STREAM_STDOUT, LogChunk
from stretto_sdk.worker.log_buffer import (
    CALL_BYTES_MAX,
    CHUNK_BYTES_MAX,
    LeaseLog,
    LogBuffer,
    LogLimits,
)

OUT, ERR = LOG_STREAM_STDOUT, LOG_STREAM_STDERR


def log(item: str = "a") -> LeaseLog:
    return LeaseLog(LeaseToken(work_item=item, epoch=1))


def taken(buffer: LogBuffer) -> list[LogChunk]:
    """Everything that waits, call after call."""
    chunks: list[LogChunk] = []
    while (call := buffer.take()) is not None:
        content_bytes = [len(chunk.content) for one in call.request.leases for chunk in one.chunks]
        assert sum(content_bytes) <= CALL_BYTES_MAX
        chunks += [chunk for one in call.request.leases for chunk in one.chunks]
        buffer.settle(call)
    return chunks


def test_what_comes_in_pieces_leaves_in_chunks_of_one_stream_each() -> None:
    buffer, one = LogBuffer(LogLimits()), log()
    for stream, content in ((OUT, b"a"), (OUT, b"b"), (ERR, b"c"), (OUT, b"d")):
        buffer.write(one, stream, content, 1_500_000_000)
    chunks = taken(buffer)
    assert [(chunk.sequence, chunk.stream, chunk.content) for chunk in chunks] == [
        (1, OUT, b"ab"),
        (2, ERR, b"c"),
        (3, OUT, b"d"),
    ]
    assert (chunks[0].time.seconds, chunks[0].time.nanos) == (1, 500_000_000)
    assert one.is_empty and buffer.waiting_bytes == 0


def test_what_is_large_leaves_in_many_chunks_and_calls() -> None:
    buffer, one = LogBuffer(LogLimits(attempt_bytes_full=4 << 20)), log()
    content = bytes(range(256)) * 20_000
    buffer.write(one, OUT, content, 0)
    chunks = taken(buffer)
    assert b"".join(chunk.content for chunk in chunks) == content
    assert max(len(chunk.content) for chunk in chunks) == CHUNK_BYTES_MAX
    assert [chunk.sequence for chunk in chunks] == list(range(1, len(chunks) + 1))


def test_beyond_the_limits_bytes_are_dropped_and_counted_before_what_follows() -> None:
    buffer, one = LogBuffer(LogLimits(attempt_bytes_full=10)), log()
    buffer.write(one, OUT, b"x" * 10, 0)
    assert buffer.is_full(one)
    buffer.write(one, OUT, b"y" * 11, 0)
    buffer.write(one, OUT, b"z" * 5, 0)
    assert [(chunk.dropped_bytes, chunk.content) for chunk in taken(buffer)] == [
        (0, b"x" * 10),
        (11, b"z" * 5),
    ]
    assert buffer.has_room(one)


def test_a_loss_at_the_end_is_told_too() -> None:
    buffer, one = LogBuffer(LogLimits(attempt_bytes_full=1)), log()
    buffer.write(one, OUT, b"too much", 0)
    assert [(chunk.dropped_bytes, chunk.content) for chunk in taken(buffer)] == [(8, b"")]
    assert one.is_empty


def test_one_attempt_that_writes_much_keeps_no_other_from_writing() -> None:
    buffer, loud, quiet = LogBuffer(LogLimits()), log("loud"), log("quiet")
    buffer.write(loud, OUT, bytes(2 << 20), 0)
    buffer.write(loud, OUT, b"dropped", 0)
    buffer.write(quiet, OUT, b"kept", 0)
    assert not buffer.is_full(quiet)
    assert b"kept" in [chunk.content for chunk in taken(buffer)]


def test_what_the_kernel_takes_no_more_of_is_forgotten() -> None:
    buffer, one = LogBuffer(LogLimits()), log()
    buffer.write(one, OUT, b"x", 0)
    buffer.cut(one)
    buffer.write(one, OUT, b"y", 0)
    assert taken(buffer) == [] and one.is_empty and not buffer.is_full(one)
    assert buffer.waiting_bytes == 0
