"""How much that clients begin is under way, and when more of it is refused.

A call that begins work (a start, a slice of a plan, a retry) counts from its arrival to its answer.
Beyond the limit it is refused before it is read, so that what waits is bounded in number and bytes
and a refusal costs next to nothing. What keeps or ends work passes by: renewals, outcomes, cancels
and reads never stand behind starts.
"""

from __future__ import annotations

from types import TracebackType

from stretto_kernel.app.fact_writer import Overloaded

BYTES_PER_WEIGHT = 8 * 1024
"""A larger request weighs as several: a slice of 1,000 tasks takes as long as many starts, and 500
starts in one call are a few dozen."""


class Admission:
    """What is under way at one kernel.

    weight_max: once so much is under way nothing more is admitted. The last to be admitted may go
    beyond, so that no call is too heavy to ever come in; a message has at most 4 MiB.
    """

    def __init__(self, weight_max: int) -> None:
        self._weight_max = weight_max
        self.weight = 0
        self.refused_count = 0

    def admit(self, request_bytes: int) -> Admitted:
        """Count a call for as long as the context returned is open. Raises Overloaded."""
        if self.weight >= self._weight_max:
            self.refused_count += 1
            raise Overloaded("as much as the kernel takes at once is under way")
        return Admitted(self, 1 + request_bytes // BYTES_PER_WEIGHT)


class Admitted:
    """One call that was admitted; a context around its work."""

    __slots__ = ("_admission", "_weight")

    def __init__(self, admission: Admission, weight: int) -> None:
        self._admission = admission
        self._weight = weight

    def __enter__(self) -> None:
        self._admission.weight += self._weight

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._admission.weight -= self._weight
