"""Buckets as key-value stores of NATS JetStream, which clients of any language can read and watch.

A value is written only onto the message it replaces (by its sequence), and its revision is a header
of it: two writers, or one that repeats itself, never put an older value over a newer one.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final, NamedTuple

from nats.js import JetStreamContext
from nats.js.api import Header, KeyValueConfig, StorageType
from nats.js.errors import APIError, NoStreamResponseError, NotFoundError

from stretto_core.bus.buckets import BucketMissing, BucketValue
from stretto_core.bus.jetstream import ACK_TIMEOUT_S, LOST, JetStreamBus, said
from stretto_core.errors import Unavailable

REVISION_HEADER: Final = "Stretto-Revision"
WINDOW_COUNT = 64
KNOWN_COUNT_MAX = 20_000
WRONG_LAST_SEQUENCE: Final = 10_071


class _Held(NamedTuple):
    """What a key holds, as far as this knows. sequence: of its message; 0 = it holds nothing."""

    revision: int
    sequence: int


_NOTHING = _Held(0, 0)


class JetStreamBuckets:
    """Implements Buckets over the connection of a bus."""

    def __init__(self, bus: JetStreamBus) -> None:
        self._bus = bus
        self._known: dict[str, _Held] = {}

    async def exists(self, bucket: str) -> bool:
        """See `Buckets`."""
        async with self._stream() as stream:
            try:
                await stream.stream_info(_stream_of(bucket))
            except NotFoundError:
                self._forget(bucket)
                return False
            return True

    async def make(self, bucket: str) -> None:
        """See `Buckets`."""
        if await self.exists(bucket):
            self._forget(bucket)  # It may be another than the one that is known.
            return
        async with self._stream() as stream:
            await stream.create_key_value(
                KeyValueConfig(
                    bucket=bucket,
                    description="Blackboards of Stretto, mirrored from its log.",
                    history=1,
                    storage=StorageType.FILE,
                    direct=True,
                )
            )

    async def clear(self, bucket: str, first_word: str) -> None:
        """See `Buckets`."""
        self._forget(bucket)
        async with self._stream() as stream:
            try:
                await stream.purge_stream(
                    _stream_of(bucket), subject=_subject(bucket, f"{first_word}.>")
                )
            except NotFoundError as error:
                raise BucketMissing("no such bucket", bucket=bucket) from error

    async def put_newer(self, bucket: str, values: Sequence[BucketValue]) -> None:
        """See `Buckets`."""
        for first in range(0, len(values), WINDOW_COUNT):
            window = values[first : first + WINDOW_COUNT]
            async with self._stream() as stream:
                done = await asyncio.gather(
                    *(self._put(stream, bucket, value) for value in window),
                    return_exceptions=True,
                )
                for error in done:
                    if isinstance(error, BaseException):
                        raise error
        while len(self._known) > KNOWN_COUNT_MAX:
            del self._known[next(iter(self._known))]

    async def get(self, bucket: str, key: str) -> BucketValue | None:
        """See `Buckets`."""
        async with self._stream() as stream:
            try:
                message = await stream.get_last_msg(_stream_of(bucket), _subject(bucket, key))
            except NotFoundError:
                if await self.exists(bucket):
                    return None
                raise BucketMissing("no such bucket", bucket=bucket) from None
            return BucketValue(key, _revision(message.headers), message.data or b"")

    async def _put(self, stream: JetStreamContext, bucket: str, value: BucketValue) -> None:
        subject = _subject(bucket, value.key)
        # Unknown is tried as absent: most keys are new, and a wrong guess costs one look.
        held = self._known.get(subject, _NOTHING)
        while held.revision < value.revision:
            try:
                written = await stream.publish(
                    subject,
                    value.value,
                    timeout=ACK_TIMEOUT_S,
                    headers={
                        Header.EXPECTED_LAST_SUBJECT_SEQUENCE.value: str(held.sequence),
                        REVISION_HEADER: str(value.revision),
                    },
                )
            except NoStreamResponseError as error:
                self._forget(bucket)
                raise BucketMissing("no such bucket", bucket=bucket) from error
            except APIError as error:
                if error.err_code != WRONG_LAST_SEQUENCE:
                    raise
                found = await self._look(stream, bucket, subject)
                if found.sequence < held.sequence:  # Within a stream they only rise.
                    self._forget(bucket)
                    raise BucketMissing("it was made again", bucket=bucket) from error
                held = found
            else:
                held = _Held(value.revision, written.seq)
        self._known.pop(subject, None)  # The longest unused is the first.
        self._known[subject] = held

    async def _look(self, stream: JetStreamContext, bucket: str, subject: str) -> _Held:
        try:
            message = await stream.get_last_msg(_stream_of(bucket), subject)
        except NotFoundError:
            return _NOTHING
        return _Held(_revision(message.headers), message.seq or 0)

    def _forget(self, bucket: str) -> None:
        for subject in [each for each in self._known if each.startswith(_subject(bucket, ""))]:
            del self._known[subject]

    @asynccontextmanager
    async def _stream(self) -> AsyncIterator[JetStreamContext]:
        client = await self._bus.connected()
        try:
            yield client.jetstream(timeout=ACK_TIMEOUT_S)
        except LOST as error:
            raise Unavailable(f"the bus did not take it: {said(error)}") from error


def _stream_of(bucket: str) -> str:
    return f"KV_{bucket}"


def _subject(bucket: str, key: str) -> str:
    return f"$KV.{bucket}.{key}"


def _revision(headers: dict[str, str] | None) -> int:
    """Return the revision that a message bears; 0 for what somebody else put there."""
    text = (headers or {}).get(REVISION_HEADER, "")
    return int(text) if text.isdecimal() else 0
