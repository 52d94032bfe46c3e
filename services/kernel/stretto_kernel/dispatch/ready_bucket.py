"""One kind of ready work: items of one queue, executor and set of required labels, in their order.

Priority goes first, then whose turn it is by fair share, then age. Items stand in lines, one per
priority and fairness key, each by age; which line is first is found out when it is asked. What was
taken away is skipped when it surfaces. Pure; every operation is O(log n), late corrections spread
over those that caused them.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import NamedTuple

from stretto_core.ids import RunId, TaskName

from stretto_kernel.dispatch.fair_share import FairShare, Flow
from stretto_kernel.domain.run.queries import Offer

Labels = frozenset[tuple[str, str]]
BucketKey = tuple[str, str, Labels]
"""(queue, executor, required labels)."""
Order = tuple[int, int, int, int]
"""(-priority, turn of the fairness key, ready instant, arrival): less goes first."""
_LineKey = tuple[int, Flow]
_Waiting = tuple[int, int, "ReadyItem"]


class ReadyItem(NamedTuple):
    """A task that may be leased.

    ready_ns: since when, UTC nanoseconds; older goes first within a priority and fairness key.
    """

    run_id: RunId
    task: TaskName
    queue: str
    executor: str
    priority: int
    ready_ns: int
    fairness_key: str = ""
    required: Labels = frozenset()
    preferred: Labels = frozenset()

    @property
    def flow(self) -> Flow:
        """Whose share it takes."""
        return (self.queue, self.fairness_key)


def ready_item(run_id: RunId, item: Offer) -> ReadyItem:
    """Return what a run offers as an item."""
    return ReadyItem(
        run_id=run_id,
        task=item.task,
        queue=item.queue,
        executor=item.executor,
        priority=item.priority,
        fairness_key=item.fairness_key,
        ready_ns=item.ready_ns,
        required=frozenset(item.required_labels),
        preferred=frozenset(item.preferred_labels),
    )


class Bucket:
    """Items of one kind.

    is_offered: whether an item that surfaces may still be granted; one that may not is dropped.
    """

    def __init__(
        self, key: BucketKey, share: FairShare, is_offered: Callable[[ReadyItem], bool]
    ) -> None:
        self.key = key
        self._share = share
        self._is_offered = is_offered
        self._lines: dict[_LineKey, list[_Waiting]] = {}
        self._firsts: list[tuple[Order, _LineKey]] = []

    def push(self, item: ReadyItem, arrival: int) -> bool:
        """Add an item; whether it is the first of all now."""
        line_key = (-item.priority, item.flow)
        line = self._lines.setdefault(line_key, [])
        heapq.heappush(line, (item.ready_ns, arrival, item))
        self._share.join(item.flow)
        if line[0][2] is not item:
            return False
        heapq.heappush(self._firsts, (self._order(line[0]), line_key))
        head = self.head()
        return head is not None and head[1] is item

    def head(self) -> tuple[Order, ReadyItem] | None:
        """The first item and its place, None when there is none.

        A place only moves back while an item waits: what a line is noted with is never too late.
        """
        while self._firsts:
            order, line_key = self._firsts[0]
            waiting = self._first_of(line_key)
            if waiting is None:
                heapq.heappop(self._firsts)
                continue
            current = self._order(waiting)
            if current == order:
                return order, waiting[2]
            heapq.heapreplace(self._firsts, (current, line_key))
        return None

    def oldest_ns(self) -> int | None:
        """Since when the longest waiting item is ready; costs by the lines."""
        firsts = (self._first_of(line_key) for line_key in list(self._lines))
        return min((first[0] for first in firsts if first is not None), default=None)

    def take(self, item: ReadyItem) -> None:
        """The head is granted: it takes its flow's turn."""
        self._share.serve(item.flow)
        self._pop((-item.priority, item.flow))

    def _first_of(self, line_key: _LineKey) -> _Waiting | None:
        while line := self._lines.get(line_key):
            if self._is_offered(line[0][2]):
                return line[0]
            self._pop(line_key)
        return None

    def _pop(self, line_key: _LineKey) -> None:
        line = self._lines[line_key]
        heapq.heappop(line)
        self._share.leave(line_key[1])
        if not line:
            del self._lines[line_key]

    def _order(self, waiting: _Waiting) -> Order:
        ready_ns, arrival, item = waiting
        return (-item.priority, self._share.turn(item.flow), ready_ns, arrival)
