"""Why a call brought no answer."""

from __future__ import annotations


class CallBroken(Exception):
    """reason: a stable word; message: for people, it may hold what the other side said."""

    def __init__(self, reason: str, message: str, *, retryable: bool = True) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.retryable = retryable
