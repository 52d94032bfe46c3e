"""The limits of values that lease holders send. Pure; the decider checks what a plan may hold."""

from __future__ import annotations

import re

from stretto.common.v1.failure_pb2 import Failure
from stretto.common.v1.payload_pb2 import Payload

from stretto_kernel.domain.run.findings import Findings

MESSAGE_BYTES_MAX = 4 * 1024
_REASON = re.compile(r"[A-Z][A-Z0-9_]{0,63}")


def check_payloads(**payloads: Payload | None) -> None:
    """Refuse a value beyond the limits. Raises InvalidArgument, Unimplemented."""
    findings = Findings()
    for field, payload in payloads.items():
        if payload is not None:
            findings.check_payload(field, payload)
    findings.refuse("the outcome")


def checked_failure(failure: Failure) -> Failure:
    """Return the failure with its message cut to size. Raises InvalidArgument."""
    findings = Findings()
    if not _REASON.fullmatch(failure.reason):
        findings.wrong("failed.reason", "must be 1-64 characters of UPPER_SNAKE")
    if failure.HasField("details"):
        findings.check_payload("failed.details", failure.details)
    findings.refuse("the outcome")
    if len(failure.message.encode()) <= MESSAGE_BYTES_MAX:
        return failure
    cut = Failure()
    cut.CopyFrom(failure)
    cut.message = failure.message.encode()[:MESSAGE_BYTES_MAX].decode("utf-8", "ignore")
    return cut
