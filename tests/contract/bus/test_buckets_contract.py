"""What every adapter of buckets must hold. A new adapter is one more entry of the fixture."""

from __future__ import annotations

from collections.abc import AsyncIterator

import nats
import pytest
from stretto_core.bus.buckets import BucketMissing, Buckets, BucketValue, MemoryBuckets
from stretto_core.bus.jetstream import JetStreamBus
from stretto_core.bus.jetstream_buckets import JetStreamBuckets

BUCKET = "a_bucket"


@pytest.fixture(params=["memory", "jetstream"])
def nats_or_none(request: pytest.FixtureRequest) -> str | None:
    if request.param == "memory":
        return None
    url: str = request.getfixturevalue("fresh_nats")
    return url


@pytest.fixture
async def buckets(nats_or_none: str | None) -> AsyncIterator[Buckets]:
    if nats_or_none is None:
        yield MemoryBuckets()
        return
    bus = JetStreamBus(nats_or_none)
    yield JetStreamBuckets(bus)
    await bus.close()


def value(key: str, revision: int, content: bytes = b"x") -> BucketValue:
    return BucketValue(key, revision, content)


async def test_a_bucket_has_to_be_made(buckets: Buckets) -> None:
    assert not await buckets.exists(BUCKET)
    with pytest.raises(BucketMissing):
        await buckets.put_newer(BUCKET, [value("p0.a", 1)])
    with pytest.raises(BucketMissing):
        await buckets.get(BUCKET, "p0.a")
    with pytest.raises(BucketMissing):
        await buckets.clear(BUCKET, "p0")
    await buckets.make(BUCKET)
    await buckets.make(BUCKET)
    assert await buckets.exists(BUCKET)
    assert await buckets.get(BUCKET, "p0.a") is None


async def test_the_newest_revision_stands_whatever_comes_again(buckets: Buckets) -> None:
    await buckets.make(BUCKET)
    await buckets.put_newer(BUCKET, [value("p0.a", 5, b"five"), value("p0.b", 1)])
    await buckets.put_newer(BUCKET, [value("p0.a", 4, b"four")])
    await buckets.put_newer(BUCKET, [value("p0.a", 5, b"again")])
    assert await buckets.get(BUCKET, "p0.a") == value("p0.a", 5, b"five")
    await buckets.put_newer(BUCKET, [value("p0.a", 7, b"seven")])
    assert await buckets.get(BUCKET, "p0.a") == value("p0.a", 7, b"seven")


async def test_a_second_writer_that_knows_nothing_puts_nothing_older(buckets: Buckets) -> None:
    await buckets.make(BUCKET)
    await buckets.put_newer(BUCKET, [value("p0.a", 5, b"five")])
    other: Buckets = buckets
    if isinstance(buckets, JetStreamBuckets):
        other = JetStreamBuckets(buckets._bus)
    await other.put_newer(BUCKET, [value("p0.a", 3, b"three")])
    assert await buckets.get(BUCKET, "p0.a") == value("p0.a", 5, b"five")
    await other.put_newer(BUCKET, [value("p0.a", 6, b"six")])
    await buckets.put_newer(BUCKET, [value("p0.a", 7, b"seven")])
    assert await other.get(BUCKET, "p0.a") == value("p0.a", 7, b"seven")


async def test_a_cleared_part_is_empty_and_can_be_put_again(buckets: Buckets) -> None:
    await buckets.make(BUCKET)
    await buckets.put_newer(BUCKET, [value("p0.a", 5), value("p0.r.b", 6), value("p1.a", 5)])
    await buckets.clear(BUCKET, "p0")
    assert await buckets.get(BUCKET, "p0.a") is None
    assert await buckets.get(BUCKET, "p0.r.b") is None
    assert await buckets.get(BUCKET, "p1.a") == value("p1.a", 5)
    await buckets.put_newer(BUCKET, [value("p0.a", 2)])
    assert await buckets.get(BUCKET, "p0.a") == value("p0.a", 2)


async def test_many_values_at_once(buckets: Buckets) -> None:
    await buckets.make(BUCKET)
    await buckets.put_newer(BUCKET, [value(f"p0.{number}", 1) for number in range(300)])
    assert await buckets.get(BUCKET, "p0.299") == value("p0.299", 1)


async def test_a_bucket_that_another_made_again_is_not_taken_for_the_one_before(
    fresh_nats: str,
) -> None:
    bus = JetStreamBus(fresh_nats)
    buckets = JetStreamBuckets(bus)
    await buckets.make(BUCKET)
    await buckets.put_newer(BUCKET, [value("p0.a", 5), value("p0.b", 5)])
    client = await nats.connect(fresh_nats)
    await client.jetstream().delete_key_value(BUCKET)
    await client.close()
    await JetStreamBuckets(bus).make(BUCKET)
    with pytest.raises(BucketMissing):
        await buckets.put_newer(BUCKET, [value("p0.a", 6)])
    await buckets.make(BUCKET)
    await buckets.put_newer(BUCKET, [value("p0.a", 6), value("p0.b", 5)])
    assert await buckets.get(BUCKET, "p0.a") == value("p0.a", 6)
    assert await buckets.get(BUCKET, "p0.b") == value("p0.b", 5)
    await bus.close()
