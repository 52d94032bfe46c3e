"""The sleep executor on virtual time: how long, how many, how stopped, what is refused."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable

import pytest
from stretto.common.v1.payload_pb2 import BlobRef, Payload
from stretto.run.v1.plan_pb2 import TaskSpec
from stretto.work.v1.work_pb2 import Assignment
from stretto_core.testing.virtual_loop import START_NS, VirtualLoop
from stretto_sdk.blobs import Source
from stretto_sdk.board_link import BoardLink
from stretto_sdk.worker.effects import Ending, Failed, LeaseKey, Stop, StopKind, Stopped, Succeeded
from stretto_sdk.worker.log_forwarder import TaskLogWriter
from stretto_sdk.worker.sleep_executor import SleepExecutor


class Endings:
    """What the executor reported, and when."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop
        self.by_key: dict[LeaseKey, tuple[int, Ending]] = {}

    def ended(self, key: LeaseKey, ending: Ending) -> None:
        assert key not in self.by_key, "a body ends once"
        self.by_key[key] = (self._loop.now_ns - START_NS, ending)

    def heartbeat(self, key: LeaseKey, details: Payload) -> None:
        raise AssertionError("a body that sleeps says nothing")

    def spawn(self, key: LeaseKey, request_id: str, tasks: tuple[TaskSpec, ...]) -> None:
        raise AssertionError("a body that sleeps wants nothing")

    @property
    def boards(self) -> BoardLink:
        raise AssertionError("this body reaches no blackboard")

    async def put_blob(self, key: LeaseKey, source: Source) -> BlobRef:
        raise AssertionError("a body that sleeps leaves nothing behind")

    def task_log(self, key: LeaseKey) -> TaskLogWriter:
        raise AssertionError("a body that sleeps writes nothing")


def assignment(item: str, arguments_json: str) -> Assignment:
    found = Assignment(executor="sleep", arguments_json=arguments_json)
    found.token.work_item, found.token.epoch = item, 1
    return found


def endings_of(
    work: Callable[[SleepExecutor, VirtualLoop], Awaitable[None]],
) -> dict[str, tuple[int, Ending]]:
    """Return (virtual nanoseconds since the start, ending) of each body of `work`, by item."""
    loop = VirtualLoop(random.Random(1))
    endings = Endings(loop)
    executor = SleepExecutor()
    executor.attach(endings)

    async def main() -> None:
        await work(executor, loop)
        await executor.close()

    loop.run(main())
    assert not loop.failures
    return {key.work_item: told for key, told in endings.by_key.items()}


async def pass_time(loop: VirtualLoop, seconds: float) -> None:
    woken = loop.create_future()
    loop.call_later(seconds, woken.set_result, None)
    await woken


def test_thousands_sleep_at_once_each_for_its_time() -> None:
    async def work(executor: SleepExecutor, loop: VirtualLoop) -> None:
        for ms in range(5_000):
            executor.begin(assignment(str(ms), f'{{"duration": "{ms}ms"}}'))
        await pass_time(loop, 10)

    told = endings_of(work)
    assert told == {str(ms): (ms * 1_000_000, Succeeded()) for ms in range(5_000)}


@pytest.mark.parametrize("kind", list(StopKind))
def test_a_body_that_is_asked_to_stop_stops_at_once(kind: StopKind) -> None:
    async def work(executor: SleepExecutor, loop: VirtualLoop) -> None:
        executor.begin(assignment("a", '{"duration": "1h"}'))
        executor.begin(assignment("b", '{"duration": "2s"}'))
        await pass_time(loop, 1)
        executor.stop(Stop(LeaseKey("a", 1), kind, "enough"))
        executor.stop(Stop(LeaseKey("a", 1), kind, "enough"))
        executor.stop(Stop(LeaseKey("unknown", 1), kind, "enough"))
        await pass_time(loop, 7_200)

    assert endings_of(work) == {"a": (10**9, Stopped()), "b": (2 * 10**9, Succeeded())}


def test_closing_ends_the_timers() -> None:
    async def work(executor: SleepExecutor, loop: VirtualLoop) -> None:
        executor.begin(assignment("a", '{"duration": "1s"}'))
        await executor.close()
        await pass_time(loop, 2)

    assert endings_of(work) == {}


@pytest.mark.parametrize(
    ("arguments_json", "says"),
    [
        ("", "is required"),
        ("{}", "is required"),
        ('{"duration": 5}', "must be a span of time"),
        ('{"duration": ""}', "span of time"),
        ('{"duration": "5"}', "span of time"),
        ('{"duration": "-5s"}', "span of time"),
        ('{"duration": "1s", "seconds": 1}', "is not a field here"),
        ("[]", "must be an object"),
        ("{", "is not JSON"),
    ],
)
def test_wrong_arguments_fail_for_good(arguments_json: str, says: str) -> None:
    async def work(executor: SleepExecutor, loop: VirtualLoop) -> None:
        executor.begin(assignment("a", arguments_json))

    ending = endings_of(work)["a"][1]
    assert isinstance(ending, Failed)
    assert ending.failure.reason == "INVALID_ARGUMENTS"
    assert says in ending.failure.message
    assert not ending.failure.retryable
