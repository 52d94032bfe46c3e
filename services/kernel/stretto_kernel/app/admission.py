"""How much that clients begin is under way, and when more of it is refused.

A call that begins work (a start, a slice of a plan, a retry) counts from its arrival to its answer.
Beyond the limit it is refused before it is read, so that what waits is bounded in number and bytes
and a refusal costs next to nothing. What keeps or ends work passes by: renewals, outcomes, cancels
and reads never stand behind starts.

Beyond the limit a namespace that has less under way than its share still comes in: who offers twice
what can be carried has its own calls refused, not those of others. There is as much room again for
that, no more, whatever the number of namespaces.
"""

from __future__ import annotations

from types import TracebackType

from stretto_kernel.app.fact_writer import Overloaded

BYTES_PER_WEIGHT = 8 * 1024
"""A larger request weighs as several: a slice of 1,000 tasks takes as long as many starts, and 500
starts in one call are a few dozen."""


class Admission:
    """What is under way at one kernel.

    weight_max: once so much is under way nothing more is admitted but of namespaces below their
    share, weight_max by the number of namespaces with calls under way; once twice as much is,
    nothing at all. The last to be admitted may go beyond, so that no call is too heavy to ever come
    in; a message has at most 4 MiB.
    """

    def __init__(self, weight_max: int) -> None:
        self._weight_max = weight_max
        self.weight = 0
        self.refused_count = 0
        self._weights: dict[str, int] = {}

    @property
    def namespace_count(self) -> int:
        """How many namespaces have calls under way; none is remembered without."""
        return len(self._weights)

    def admit(self, namespace: str, request_bytes: int) -> Admitted:
        """Count a call for as long as the context returned is open. Raises Overloaded.

        namespace: by any one spelling; nothing is looked up by it.
        """
        if self.weight >= self._weight_max and not self._has_share(namespace):
            self.refused_count += 1
            raise Overloaded("as much as the kernel takes at once is under way")
        return Admitted(self, namespace, 1 + request_bytes // BYTES_PER_WEIGHT)

    def _has_share(self, namespace: str) -> bool:
        """Whether the namespace has less under way than what each would have of equal shares."""
        if self.weight >= 2 * self._weight_max:
            return False
        own = self._weights.get(namespace, 0)
        sharing = len(self._weights) + (own == 0)
        return own * sharing < self._weight_max

    def begin(self, namespace: str, weight: int) -> None:
        """So much more is under way."""
        self.weight += weight
        self._weights[namespace] = self._weights.get(namespace, 0) + weight

    def end(self, namespace: str, weight: int) -> None:
        """So much less is."""
        self.weight -= weight
        left = self._weights[namespace] - weight
        if left:
            self._weights[namespace] = left
        else:
            del self._weights[namespace]


class Admitted:
    """One call that was admitted; a context around its work."""

    __slots__ = ("_admission", "_namespace", "_weight")

    def __init__(self, admission: Admission, namespace: str, weight: int) -> None:
        self._admission = admission
        self._namespace = namespace
        self._weight = weight

    def __enter__(self) -> None:
        self._admission.begin(self._namespace, self._weight)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._admission.end(self._namespace, self._weight)
