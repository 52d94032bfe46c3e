"""What a worker says of itself in its hello, checked field by field. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from stretto.common.v1 import lease_pb2
from stretto.work.v1 import work_pb2
from stretto_core.errors import FieldViolation, InvalidArgument
from stretto_core.ids import SessionId, WorkerId, uuid7_unix_ms

from stretto_kernel.dispatch.ready_queues import OfferKey

NAME_CHARACTERS_MAX = 128
NAMES_MAX = 1_000
HELD_MAX = 10_000


@dataclass(frozen=True, slots=True)
class WorkerHello:
    """A checked hello.

    held: every lease the process says it holds.
    control_address: host:port to prove the process's death by; "" = none.
    slot_count, version: in its own word, for people.
    """

    worker_id: WorkerId
    session_id: SessionId
    offer: OfferKey
    held: tuple[lease_pb2.LeaseToken, ...]
    control_address: str
    takes_tasks: bool
    slot_count: int
    version: str


def parse_hello(hello: work_pb2.Hello) -> WorkerHello:
    """Return the hello if all of it is right. Raises InvalidArgument with every violation."""
    violations: list[FieldViolation] = []

    def check(holds: bool, path: str, description: str) -> None:
        if not holds:
            violations.append(FieldViolation(f"hello.{path}", description))

    check(_is_name(hello.worker_id), "worker_id", "1-128 printable characters")
    check(uuid7_unix_ms(hello.session_id) is not None, "session_id", "a UUIDv7")
    check(0 < len(hello.executors) <= NAMES_MAX, "executors", "1-1,000 names")
    check(len(hello.queues) <= NAMES_MAX, "queues", "at most 1,000 names")
    check(len(hello.labels) <= NAMES_MAX, "labels", "at most 1,000")
    check(len(hello.held) <= HELD_MAX, "held", "at most 10,000")
    check(hello.slot_count >= 0, "slot_count", "not negative")
    version = hello.version
    check(len(version) <= NAME_CHARACTERS_MAX, "version", "at most 128 characters")
    check(not version or version.isprintable(), "version", "printable characters")
    for path, names in (("executors", hello.executors), ("queues", hello.queues)):
        for index, name in enumerate(names):
            check(_is_name(name), f"{path}[{index}]", "1-128 printable characters")
    if violations:
        raise InvalidArgument("the hello is not valid", violations=violations)
    task_kind = lease_pb2.WORK_ITEM_KIND_TASK
    return WorkerHello(
        worker_id=WorkerId(hello.worker_id),
        session_id=SessionId(hello.session_id.lower()),
        offer=OfferKey(
            frozenset(hello.queues or ("default",)),
            frozenset(hello.executors),
            frozenset(hello.labels.items()),
        ),
        held=tuple(hello.held),
        control_address=hello.control_address,
        takes_tasks=not hello.kinds or task_kind in hello.kinds,
        slot_count=hello.slot_count,
        version=version,
    )


def _is_name(text: str) -> bool:
    return 0 < len(text) <= NAME_CHARACTERS_MAX and text.isprintable()
