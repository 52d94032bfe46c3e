"""One kind of ready work: items of one queue, executor and set of required labels, in their order.

Priority goes first, then whose turn it is by fair share, then age. Items stand in lines, one per
priority and fairness key, each by age; which line is first is found out when it is asked. What was
taken away is skipped when it surfaces, so many at a time, or dropped from the end of its line when
another item comes: lines do not grow by what nobody takes. Pure; every operation is O(log n).
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
SKIPPED_MAX = 500
"""So many that were taken away are skipped at most before others run."""
TRIMMED_MAX = 4
"""So many are dropped from the end of a line at most when another item comes."""
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
    is_there: whether it may ever be.
    """

    def __init__(
        self,
        key: BucketKey,
        share: FairShare,
        *,
        is_offered: Callable[[ReadyItem], bool],
        is_there: Callable[[ReadyItem], bool],
    ) -> None:
        self.key = key
        self._share = share
        self._is_offered = is_offered
        self._is_there = is_there
        self._lines: dict[_LineKey, list[_Waiting]] = {}
        self._noted: dict[_LineKey, Order] = {}
        """The place that a line is noted with; another one of it in the heap is void."""
        self._firsts: list[tuple[Order, _LineKey]] = []

    def push(self, item: ReadyItem, arrival: int) -> bool:
        """Add an item; whether it is the first of all now, as far as that is known."""
        line_key = (-item.priority, item.flow)
        line = self._lines.setdefault(line_key, [])
        self._share.join(item.flow)
        self._trim(line, item.flow)
        heapq.heappush(line, (item.ready_ns, arrival, item))
        if line[0][2] is not item:
            return False
        order, noted = self._order(line[0]), self._noted.get(line_key)
        if noted is None or order < noted:
            self._noted[line_key] = order
            heapq.heappush(self._firsts, (order, line_key))
        head = self.head()
        return head is not None and (head[1] is item or head[1] is None)

    def head(self) -> tuple[Order, ReadyItem | None] | None:
        """The first item and its place, None when there is none.

        Without an item there may be one, at that place or behind it: too many before it were taken
        away to look at all of them at once. A place only moves back while an item waits: what a
        line is noted with is never too late.
        """
        skipped_count = 0
        while self._firsts:
            order, line_key = self._firsts[0]
            line = self._lines.get(line_key)
            if self._noted.get(line_key) != order or line is None:
                heapq.heappop(self._firsts)
                if line is None:
                    self._noted.pop(line_key, None)
                continue
            waiting = line[0]
            if not self._is_offered(waiting[2]):
                self._pop(line_key)
                skipped_count += 1
                if skipped_count == SKIPPED_MAX:
                    return order, None
                continue
            current = self._order(waiting)
            if current == order:
                return order, waiting[2]
            self._noted[line_key] = current
            heapq.heapreplace(self._firsts, (current, line_key))
        return None

    def oldest_ns(self) -> int | None:
        """Since when the longest waiting item is ready; costs by the lines.

        Of a line in which too many were taken away before it, it is said of one of those.
        """
        oldest: int | None = None
        for line_key in list(self._lines):
            skipped_count = 0
            while (line := self._lines.get(line_key)) and not self._is_offered(line[0][2]):
                self._pop(line_key)
                skipped_count += 1
                if skipped_count == SKIPPED_MAX:
                    break
            if line := self._lines.get(line_key):
                oldest = line[0][0] if oldest is None else min(oldest, line[0][0])
        return oldest

    def take(self, item: ReadyItem) -> None:
        """The head is granted: it takes its flow's turn."""
        self._share.serve(item.flow)
        self._pop((-item.priority, item.flow))

    def _trim(self, line: list[_Waiting], flow: Flow) -> None:
        """Drop what was taken away from the end of a heap, which stays one."""
        for _ in range(TRIMMED_MAX):
            if not line or self._is_there(line[-1][2]):
                return
            line.pop()
            self._share.leave(flow)

    def _pop(self, line_key: _LineKey) -> None:
        line = self._lines[line_key]
        heapq.heappop(line)
        self._share.leave(line_key[1])
        if not line:
            del self._lines[line_key]

    def _order(self, waiting: _Waiting) -> Order:
        ready_ns, arrival, item = waiting
        return (-item.priority, self._share.turn(item.flow), ready_ns, arrival)
