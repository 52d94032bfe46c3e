"""What a value that could not be moved means for its attempt: another may help, or none will."""

from __future__ import annotations

from typing import Any

import pytest
from stretto.common.v1.payload_pb2 import BlobRef, Payload
from stretto.work.v1.work_pb2 import Assignment
from stretto_core.errors import (
    DeadlineExceeded,
    Exhausted,
    NotFound,
    PermissionDenied,
    Refusal,
    Unavailable,
)
from stretto_sdk.blobs import Source
from stretto_sdk.worker.effects import Ending, Failed, LeaseKey, Succeeded, key_of
from stretto_sdk.worker.value_carrier import ValueCarrier

from tests.waiting import until


class Refusing:
    """Blobs that can neither be put nor got, and whoever else the carrier talks to."""

    def __init__(self, refusal: Refusal) -> None:
        self._refusal = refusal
        self.endings: dict[LeaseKey, Ending] = {}

    async def put(self, namespace: str, source: Source) -> BlobRef:
        raise self._refusal

    async def get(self, namespace: str, digest: bytes) -> bytes:
        raise self._refusal

    def attach(self, reports: object) -> None:
        """Its bodies report what the test says."""

    def begin(self, assignment: Assignment) -> None:
        """A body of the test."""

    def ended(self, key: LeaseKey, ending: Ending) -> None:
        self.endings[key] = ending


def assignment(item: str, **inputs: Payload) -> Assignment:
    made = Assignment(run="namespaces/default/runs/r", inputs=inputs)
    made.token.work_item, made.token.epoch = item, 1
    return made


@pytest.mark.parametrize(
    ("refusal", "may_pass"),
    [
        (Unavailable("restarting"), True),
        (Exhausted("too many uploads", reason="OVERLOADED"), True),
        (DeadlineExceeded("no answer"), True),
        (NotFound("no such blob"), False),
        (PermissionDenied("not with this token"), False),
    ],
)
async def test_a_kernel_that_is_full_or_slow_fails_no_task_for_good(
    refusal: Refusal, may_pass: bool
) -> None:
    double: Any = Refusing(refusal)
    carrier = ValueCarrier(double, double)
    carrier.attach(double)
    stored, fetched = assignment("stored"), assignment("fetched", i=Payload(blob=BlobRef()))
    carrier.begin(stored)
    carrier.begin(fetched)
    carrier.ended(key_of(stored.token), Succeeded(Payload(data=bytes(100_000))))
    await until(lambda: len(double.endings) == 2)
    for ending in double.endings.values():
        assert isinstance(ending, Failed)
        assert ending.failure.retryable is may_pass
