"""What every bus adapter must hold. A new adapter is one more entry of ADAPTERS."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from stretto_core.bus import Bus, Hint, SubscriberTooSlow, Subscription, check_pattern, matches
from stretto_core.bus.inprocess import InProcessBus
from stretto_core.bus.jetstream import JetStreamBus
from stretto_core.errors import Unavailable
from stretto_core.ids import Partition

P0 = Partition("p0")


@pytest.fixture(params=["in-process", "jetstream"])
def nats_or_none(request: pytest.FixtureRequest) -> str | None:
    if request.param == "in-process":
        return None
    url: str = request.getfixturevalue("fresh_nats")
    return url


@pytest.fixture
async def bus(nats_or_none: str | None) -> AsyncIterator[Bus]:
    made: Bus = InProcessBus() if nats_or_none is None else JetStreamBus(nats_or_none)
    yield made
    await made.close()


def hint(subject: str, position: int = 1) -> Hint:
    return Hint(subject, P0, position)


async def rest_of(subscription: Subscription) -> list[Hint]:
    """What the subscription holds, once it is closed. Repeats are allowed, so they are dropped."""
    await subscription.close()
    seen: dict[str, Hint] = {}
    async with asyncio.timeout(60):
        async for received in subscription:
            seen.setdefault(f"{received.subject} {received.message_id}", received)
    return list(seen.values())


async def test_a_subscriber_gets_its_subject_in_order(bus: Bus) -> None:
    subscription = await bus.subscribe("run.a")
    for position in range(1, 20):
        await bus.publish([hint("run.a", position)])
        await bus.publish([hint("run.b", position + 100)])
    assert await rest_of(subscription) == [hint("run.a", position) for position in range(1, 20)]


async def test_every_subscriber_gets_it(bus: Bus) -> None:
    subscriptions = [await bus.subscribe(pattern) for pattern in ("run.a", "run.a", "run.*", ">")]
    await bus.publish([hint("run.a")])
    assert [await rest_of(each) for each in subscriptions] == [[hint("run.a")]] * 4


async def test_a_waiting_subscriber_is_woken(bus: Bus) -> None:
    subscription = await bus.subscribe("run.a")
    first = asyncio.ensure_future(anext(aiter(subscription)))
    await asyncio.sleep(0)
    assert not first.done()
    await bus.publish([hint("run.a")])
    assert await asyncio.wait_for(first, 60) == hint("run.a")


async def test_what_was_published_before_is_not_given(bus: Bus) -> None:
    await bus.publish([hint("run.a", 1)])
    subscription = await bus.subscribe("run.a")
    await bus.publish([hint("run.a", 2)])
    assert await rest_of(subscription) == [hint("run.a", 2)]


async def test_a_slow_subscriber_is_cut_off_and_disturbs_nobody(bus: Bus) -> None:
    slow = await bus.subscribe("run.a", buffer_count_max=2)
    quick = await bus.subscribe("run.a")
    for position in range(1, 6):
        await bus.publish([hint("run.a", position)])
    seen: list[int] = []
    with pytest.raises(SubscriberTooSlow):
        async for received in slow:
            seen.append(received.position)
    assert seen == [1, 2]
    assert len(await rest_of(quick)) == 5


async def test_a_closed_subscription_gets_nothing_more(bus: Bus) -> None:
    subscription = await bus.subscribe("run.a")
    await subscription.close()
    await bus.publish([hint("run.a")])
    assert await rest_of(subscription) == []


async def test_a_closed_bus_ends_its_subscriptions_and_is_unavailable(bus: Bus) -> None:
    subscription = await bus.subscribe("run.*")
    await bus.publish([hint("run.a")])
    await bus.close()
    assert await rest_of(subscription) == [hint("run.a")]
    with pytest.raises(Unavailable):
        await bus.publish([hint("run.a")])
    with pytest.raises(Unavailable):
        await bus.subscribe("run.a")


@pytest.mark.parametrize("subject", ["", ".", "a.", "a..b", "run.*", ">", "a b", "x" * 256])
async def test_a_bad_subject_is_refused(bus: Bus, subject: str) -> None:
    with pytest.raises(ValueError, match="subject"):
        await bus.publish([hint(subject)])


@pytest.mark.parametrize("pattern", ["", "a.>.b", "a*", "a..*", ">.a"])
async def test_a_bad_pattern_is_refused(bus: Bus, pattern: str) -> None:
    with pytest.raises(ValueError, match="pattern"):
        await bus.subscribe(pattern)


async def test_an_oversize_body_is_refused(bus: Bus) -> None:
    with pytest.raises(ValueError, match="bytes"):
        await bus.publish([Hint("run.a", P0, 1, b"x" * ((1 << 20) + 1))])


def test_the_same_fact_has_the_same_message_id() -> None:
    assert hint("run.a", 7).message_id == hint("all", 7).message_id == "p0:7"


@pytest.mark.parametrize(
    ("pattern", "subject", "expected"),
    [
        ("a.b", "a.b", True),
        ("a.b", "a.c", False),
        ("a.*", "a.b", True),
        ("a.*", "a.b.c", False),
        ("*.b", "a.b", True),
        ("a.>", "a.b.c", True),
        ("a.>", "a", False),
        (">", "a", True),
        ("a.b", "a", False),
    ],
)
def test_patterns_match_as_in_nats(pattern: str, subject: str, expected: bool) -> None:
    check_pattern(pattern)
    assert matches(pattern, subject) is expected
