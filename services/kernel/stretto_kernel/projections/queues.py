"""The view `queues`: what was set of each queue, and what became of its tasks, since ever.

Facts of two kinds make a row: of the queues' settings, and of runs. What waits and runs now is no
fact of a queue: the kernel knows it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

from stretto.queue.v1 import events_pb2 as queue_ev
from stretto.run.v1 import events_pb2 as ev
from stretto_core.eventlog.codec import Codec
from stretto_core.ids import TaskName

from stretto_kernel.domain.queue import EVENTS, KIND
from stretto_kernel.domain.run.task import Leased
from stretto_kernel.projections.run_folds import DEFAULT_QUEUE
from stretto_kernel.projections.view import SettingsFacts, Step, View, names_of

_ADDING = (ev.RunStarted, ev.TasksAdded, ev.TasksSpawned)
_FAILURES = (ev.AttemptFailed, ev.AttemptLost, ev.AttemptTimedOut)


class QueueRow(NamedTuple):
    """A queue, or what is added to what is known of it: first of its work, then of its settings.

    first_ns, last_ns: of facts that name it. task_count: tasks that came to be. lease_count: leases
    granted, the newest at last_lease_ns (0 = none). failed_count: attempts that failed, were lost
    or ran out of time.
    limit_version, rate_version, pause_version: of the newest fact about that setting; 0 = none.
    concurrency_limit, tokens_per_second and burst, pause_reason: None = no limit, not paused.
    changed_ns, changed_by: of the newest of those facts, the principal serialised; 0 = none.
    """

    queue: str
    first_ns: int
    last_ns: int
    task_count: int = 0
    lease_count: int = 0
    succeeded_count: int = 0
    failed_count: int = 0
    last_lease_ns: int = 0
    limit_version: int = 0
    concurrency_limit: int | None = None
    rate_version: int = 0
    tokens_per_second: float | None = None
    burst: int | None = None
    pause_version: int = 0
    pause_reason: str | None = None
    changed_ns: int = 0
    changed_by: bytes = b""


def queues_changed(step: Step) -> Sequence[QueueRow]:
    """Return what the event tells of queues; of its tasks together, however many it adds."""
    event: Any = step.recorded.event
    kind, now_ns = type(event), step.recorded.time_ns
    if step.folded is None:
        return (_set(step, event),)
    added: Sequence[QueueRow] = ()
    if queues := step.queues:
        counts = {queues[0]: 1} if len(queues) == 1 else Counter(queues)
        added = [QueueRow(queue, now_ns, now_ns, count) for queue, count in counts.items()]
    if kind in _ADDING or (kind is ev.TaskFailed and not isinstance(step.before, Leased)):
        return added
    queue = step.folded.state.tasks[TaskName(event.task)].spec.queue or DEFAULT_QUEUE
    if kind is ev.AttemptLeased:
        return (QueueRow(queue, now_ns, now_ns, 0, 1, 0, 0, now_ns),)
    if kind is ev.AttemptSucceeded:
        return (QueueRow(queue, now_ns, now_ns, 0, 0, 1), *added)
    return (QueueRow(queue, now_ns, now_ns, 0, 0, 0, 1),)


def both(kept: QueueRow, more: QueueRow) -> QueueRow:
    """Return both together: work adds up, of each setting the newest fact holds."""
    queue, first_ns, last_ns, tasks, leases, succeeded, failed, leased_ns = kept[:8]
    _, began_ns, newest_ns, more_tasks, more_leases, results, failures, at_ns = more[:8]
    work = (
        queue,
        first_ns if first_ns < began_ns else began_ns,
        last_ns if last_ns > newest_ns else newest_ns,
        tasks + more_tasks,
        leases + more_leases,
        succeeded + results,
        failed + failures,
        leased_ns if leased_ns > at_ns else at_ns,
    )
    return QueueRow._make(work + (_newest(kept, more) if more.changed_ns else kept[8:]))


def _newest(kept: QueueRow, more: QueueRow) -> tuple[Any, ...]:
    limit = kept if kept.limit_version > more.limit_version else more
    rate = kept if kept.rate_version > more.rate_version else more
    pause = kept if kept.pause_version > more.pause_version else more
    changed = kept if _settings_version(kept) > _settings_version(more) else more
    return (
        limit.limit_version,
        limit.concurrency_limit,
        rate.rate_version,
        rate.tokens_per_second,
        rate.burst,
        pause.pause_version,
        pause.pause_reason,
        changed.changed_ns,
        changed.changed_by,
    )


def _settings_version(row: QueueRow) -> int:
    return max(row.limit_version, row.rate_version, row.pause_version)


def _set(step: Step, event: Any) -> QueueRow:
    now_ns, version = step.recorded.time_ns, step.recorded.version
    by = step.envelope.principal.SerializeToString(deterministic=True)
    row = QueueRow(event.queue, now_ns, now_ns, changed_ns=now_ns, changed_by=by)
    match event:
        case queue_ev.ConcurrencyLimitChanged():
            limit = event.limit if event.HasField("limit") else None
            return row._replace(limit_version=version, concurrency_limit=limit)
        case queue_ev.RateLimitChanged() if event.HasField("limit"):
            rate, burst = event.limit.tokens_per_second, event.limit.burst
            return row._replace(rate_version=version, tokens_per_second=rate, burst=burst)
        case queue_ev.RateLimitChanged():
            return row._replace(rate_version=version)
        case queue_ev.QueuePaused():
            return row._replace(pause_version=version, pause_reason=event.reason)
        case _:
            return row._replace(pause_version=version)


QUEUES = View(
    name="queues",
    version=1,
    row=QueueRow,
    key_count=1,
    of_event=queues_changed,
    concerns=names_of(*_ADDING, ev.AttemptLeased, ev.AttemptSucceeded, ev.TaskFailed, *_FAILURES),
    settings=SettingsFacts(KIND, Codec(EVENTS)),
    merge=both,  # type: ignore[arg-type]
)
