"""Compare and set: a writer names the revision that it saw, and is refused when another stands."""

from __future__ import annotations

from typing import ClassVar

from stretto_core.errors import Conflict


class RevisionMismatch(Conflict):
    """What is there is not what the caller saw (metadata says what is): read, and decide again."""

    reason = "REVISION_MISMATCH"
    default_retry_delay_ms: ClassVar[int | None] = None


def require_etag(resource: str, seen: str, current: str) -> None:
    """Raise RevisionMismatch unless the caller saw the settings that stand; "" is not compared."""
    if seen and seen != current:
        raise RevisionMismatch(f"the settings of {resource} have changed since", etag=current)
