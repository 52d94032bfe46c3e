"""One digest of everything a run's state says: two states are equal when theirs are.

For models, replays of golden logs and the checker of live runs. Costs the run's size.
"""

from __future__ import annotations

from stretto_kernel.domain.run.canonical import digest_of
from stretto_kernel.domain.run.state import RunEvent, RunState
from stretto_kernel.domain.run.task import TaskRecord


def fingerprint(state: RunState, *, with_versions: bool = True) -> bytes:
    """Return the digest of a state, SHA-256, 32 bytes.

    with_versions: False leaves out how many events led here, so that ways that lead to the same
    place are one for an exploration.
    """
    versions = (state.version, state.stopping.stamp if state.stopping else 0)
    stopping = state.stopping
    return digest_of(
        versions if with_versions else None,
        str(state.run_id),
        state.time_ns,
        _start(state),
        [_record(record) for record in (state.tasks[name] for name in state.tasks)],
        state.task_count,
        state.counts,
        state.clean_up_counts,
        state.clean_up_tasks,
        sorted(state.open_tasks),
        sorted(state.leased_tasks),
        sorted(state.backing_off),
        state.left_alone_count,
        (state.opened_ns, state.retry_count, _reopening(state)),
        (state.slice_count, state.slice_ns, state.sealed),
        (state.holds.placed, state.holds.held_since_ns, state.holds.spans),
        stopping
        and (
            stopping.cancelled,
            stopping.reason,
            stopping.since_ns,
            stopping.grace_ns,
            stopping.grace_over,
        ),
        state.cleaning_up,
        state.end and (_event(state.end.event), state.end.ended_ns),
        state.failure,
        state.clean_up_failure,
        list(state.requests.items()),
        _board(state),
        *_encryption(state),
    )


def _encryption(state: RunState) -> tuple[object, ...]:
    """Nothing for a clear run: its fingerprint is what it always was."""
    return (state.key_id, state.shredding) if state.key_id else ()


def _start(state: RunState) -> tuple[object, ...] | None:
    start = state.start
    if start is None:
        return None
    return (
        start.request_id,
        start.request_digest,
        start.started_ns,
        start.policies,
        start.input,
        start.labels,
        start.display_name,
    )


def _board(state: RunState) -> tuple[object, ...] | None:
    board = state.board
    if board is None:
        return None
    entries = [
        (entry.key, entry.revision, entry.value, entry.writer.SerializeToString(), entry.written_ns)
        for _, entry in sorted(board.entries.items())
    ]
    return entries, board.size_bytes


def _reopening(state: RunState) -> tuple[object, ...] | None:
    reopening = state.reopening
    if reopening is None:
        return None
    return (
        reopening.step_count,
        sorted(reopening.named),
        reopening.waiting,
        reopening.task_count,
        reopening.passed,
        reopening.resetting,
        reopening.slice_count,
    )


def _record(record: TaskRecord) -> tuple[object, ...]:
    return (
        record.spec,
        record.spawner,
        record.depth,
        record.phase,
        record.epoch,
        record.activation,
        record.retry,
        (record.tries, record.returns),
        record.ready_ns,
        record.failure,
        record.details,
        record.last_lease,
        (record.waiting_count, record.succeeded_count, record.broken_count),
        sorted(record.outcomes.items()),
        sorted(record.refused_epochs),
        record.dependents,
        record.subtree_dependents,
        record.children,
    )


def _event(event: RunEvent) -> bytes:
    return event.DESCRIPTOR.full_name.encode() + event.SerializeToString(deterministic=True)
