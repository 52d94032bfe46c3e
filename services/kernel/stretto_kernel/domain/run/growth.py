"""How tasks enter a run: linked both ways, counted by the joins that wait for them.

Called by `evolve` only; the cost is the new tasks' and their edges'.
"""

from __future__ import annotations

from collections.abc import Sequence

from stretto_core.ids import TaskName

from stretto_kernel.domain.run.joins import Settling, lineage
from stretto_kernel.domain.run.plan import TaskSpec
from stretto_kernel.domain.run.task import Blocked, Cancelled, Leased, TaskRecord, with_name


def add_slice(settling: Settling, specs: Sequence[TaskSpec]) -> None:
    """Add tasks of the plan; those whose joins hold already may be leased at once."""
    state = settling.state
    records = [TaskRecord(spec, state.owner) for spec in specs]
    for record in records:
        state.add(record)
    _link(settling, records)


def add_spawned(settling: Settling, spawner: TaskName, specs: Sequence[TaskSpec]) -> None:
    """Add tasks below their spawner; joins over a subtree that holds it wait for them too."""
    state = settling.state
    parent = state.own(spawner)
    records = [TaskRecord(spec, state.owner, spawner, parent.depth + 1) for spec in specs]
    for record in records:
        state.add(record)
        parent.children = with_name(parent.children, record.name)
    for above in lineage(state, parent):
        for name in above.subtree_dependents:
            if isinstance(state.tasks[name].phase, Blocked):
                state.own(name).waiting_count += len(records)
    lease = parent.phase
    if isinstance(lease, Leased) and lease.stop_deadline_ns is not None:
        # The spawner was asked to stop because nobody needs its subtree: nor these.
        for record in records:
            settling.end(record, Cancelled(settling.time_ns, unneeded=True))
        return
    _link(settling, records)


def _link(settling: Settling, records: Sequence[TaskRecord]) -> None:
    state = settling.state
    for record in records:
        for edge in record.spec.dependencies:
            target = state.own(edge.task)
            if edge.subtree:
                target.subtree_dependents = with_name(target.subtree_dependents, record.name)
            else:
                target.dependents = with_name(target.dependents, record.name)
    for record in records:
        settling.link(record)
