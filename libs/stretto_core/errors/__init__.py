"""Refusals, named after canonical gRPC codes, each with a stable reason word and string metadata.

Deciders and services raise these; `stretto_core.rpc.status` alone translates them to and from
the wire. Concrete refusals (LeaseLost, RunClosed ...) stand beside the decider that raises them
and give `reason` as a class attribute. A message says what, where, why and what to do; every
dynamic part of it is also in the metadata, so that no caller ever parses a message.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

ERROR_DOMAIN = "stretto.dev"
"""The ErrorInfo domain of every refusal."""


class Refusal(Exception):
    """A call was refused; nothing was stored.

    message: one sentence for a person.
    reason: the stable UPPER_SNAKE word a program switches on; defaults to the class attribute.
    metadata: the dynamic parts of the message, as strings (keys lowerCamel or snake, no secrets).
    retry_delay_ms (attribute): when the same call may be tried again; None: that does not help.
    """

    reason: ClassVar[str] = "UNKNOWN"
    default_retry_delay_ms: ClassVar[int | None] = None

    def __init__(self, message: str, /, *, reason: str | None = None, **metadata: str) -> None:
        super().__init__(message)
        self.message = message
        self.reason_word = reason or type(self).reason
        self.retry_delay_ms = type(self).default_retry_delay_ms
        self.metadata = metadata

    def __str__(self) -> str:
        if not self.metadata:
            return self.message
        details = ", ".join(f"{key}={value}" for key, value in sorted(self.metadata.items()))
        return f"{self.message} ({details})"


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """One wrong field of a request: its path (`plan.tasks[3].name`), and why it is wrong."""

    field: str
    description: str


class InvalidArgument(Refusal):
    """Wrong whatever the state: fix it, never retry. All violations are reported at once."""

    reason = "INVALID_ARGUMENT"

    def __init__(
        self,
        message: str,
        /,
        *,
        violations: Sequence[FieldViolation] = (),
        reason: str | None = None,
        **metadata: str,
    ) -> None:
        super().__init__(message, reason=reason, **metadata)
        self.violations = tuple(violations)


class NotFound(Refusal):
    """Unknown, or invisible to the caller (the two are never told apart)."""

    reason = "NOT_FOUND"


class AlreadyExists(Refusal):
    """The same id with other content; what exists stands."""

    reason = "ALREADY_EXISTS"


class FailedPrecondition(Refusal):
    """The state forbids it: the reason says which state and what would lift it."""

    reason = "FAILED_PRECONDITION"


class _Retryable(Refusal):
    """Carries RetryInfo, unless its class says that trying again does not help."""

    def __init__(
        self,
        message: str,
        /,
        *,
        retry_delay_ms: int | None = None,
        reason: str | None = None,
        **metadata: str,
    ) -> None:
        super().__init__(message, reason=reason, **metadata)
        if retry_delay_ms is not None:
            self.retry_delay_ms = retry_delay_ms


class Conflict(_Retryable):
    """A race was lost: read again and decide again.

    A subclass for a compare-and-set mismatch sets `default_retry_delay_ms = None`: sending the same
    call again cannot help.
    """

    reason = "VERSION_CONFLICT"
    default_retry_delay_ms: ClassVar[int | None] = 50


class OutOfRange(Refusal):
    """The asked start lies outside what is kept (a compacted cursor, a byte past the end)."""

    reason = "OUT_OF_RANGE"


class PermissionDenied(Refusal):
    """The caller is known and may not do this."""

    reason = "PERMISSION_DENIED"


class Unauthenticated(Refusal):
    """The caller's credentials are missing or not valid."""

    reason = "UNAUTHENTICATED"


class Unimplemented(Refusal):
    """Part of the contract that this version does not serve yet."""

    reason = "UNIMPLEMENTED"


class DeadlineExceeded(Refusal):
    """The caller's deadline passed before there was an answer; the outcome is unknown."""

    reason = "DEADLINE_EXCEEDED"


class Internal(Refusal):
    """Our bug; the details are in the service's log only."""

    reason = "INTERNAL"


class Exhausted(_Retryable):
    """A limit is reached (queue, quota, size): back off as told."""

    reason = "RESOURCE_EXHAUSTED"
    default_retry_delay_ms: ClassVar[int | None] = 1_000


class Unavailable(_Retryable):
    """This call, this moment: draining, store down, owner moving. Retry, same request_id."""

    reason = "UNAVAILABLE"
    default_retry_delay_ms: ClassVar[int | None] = 100
