"""The limits of values that lease holders send, and the blobs in them. Pure.

The decider checks results, and what a plan may hold.
"""

from __future__ import annotations

import re

from stretto.common.v1.failure_pb2 import Failure
from stretto.common.v1.payload_pb2 import Payload
from stretto.work.v1 import work_pb2

from stretto_kernel.domain.run.blob_names import (
    BlobName,
    in_artifacts,
    in_payload,
    in_tasks,
)
from stretto_kernel.domain.run.findings import Findings

MESSAGE_BYTES_MAX = 4 * 1024
_REASON = re.compile(r"[A-Z][A-Z0-9_]{0,63}")


def check_details(details: Payload | None) -> None:
    """Refuse details beyond the limits. Raises InvalidArgument."""
    if details is not None:
        findings = Findings()
        findings.check_payload("details", details, is_inline=True)
        findings.refuse("the outcome")


def checked_failure(failure: Failure) -> Failure:
    """Return the failure with its message cut to size. Raises InvalidArgument."""
    findings = Findings()
    if not _REASON.fullmatch(failure.reason):
        findings.wrong("failed.reason", "must be 1-64 characters of UPPER_SNAKE")
    if failure.HasField("details"):
        findings.check_payload("failed.details", failure.details, is_inline=True)
    findings.refuse("the outcome")
    if len(failure.message.encode()) <= MESSAGE_BYTES_MAX:
        return failure
    cut = Failure()
    cut.CopyFrom(failure)
    cut.message = failure.message.encode()[:MESSAGE_BYTES_MAX].decode("utf-8", "ignore")
    return cut


def blobs_in_outcome(outcome: work_pb2.Outcome) -> frozenset[BlobName]:
    """Return the blobs that an outcome names."""
    if not outcome.HasField("succeeded"):
        return frozenset()
    succeeded = outcome.succeeded
    return frozenset(
        (
            *in_payload(succeeded.result),
            *in_tasks(succeeded.spawned),
            *in_artifacts(succeeded.artifacts),
        )
    )
