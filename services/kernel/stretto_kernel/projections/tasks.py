"""The view `tasks`: how each task's own events leave it, from which version of its run on.

Rows are never changed but for their end, so that a run can be read as of any version without a
fold. What the run does to all of its tasks at once is in `run_phases`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from stretto.run.v1 import run_pb2

from stretto_kernel.domain.run.resource import show_course
from stretto_kernel.domain.run.task import Open
from stretto_kernel.projections.view import Step, View


class TaskRow(NamedTuple):
    """A task from a version on, until its next row.

    number: its place in the order tasks came to be. phase: `task.Phase.number`. not_before_ns: when
    an open task may be leased. shown: the serialised Task resource, by its own events alone.
    """

    run_id: str
    task: str
    from_version: int
    number: int
    phase: int
    clean_up: bool
    not_before_ns: int
    queue: str
    executor: str
    shown: bytes


def tasks_changed(step: Step) -> Iterator[TaskRow]:
    """Yield the rows of the tasks that the event touched."""
    run = step.run
    state = run.state
    for name in step.touched.tasks:
        record = state.tasks[name]
        phase = record.phase
        course = run_pb2.Task()
        show_course(course, record)
        yield TaskRow(
            run_id=state.run_id,
            task=name,
            from_version=state.version,
            number=run.numbers[name],
            phase=phase.number,
            clean_up=record.spec.clean_up,
            not_before_ns=phase.not_before_ns if isinstance(phase, Open) else 0,
            queue=record.spec.queue,
            executor=record.spec.executor,
            # Messages whose bytes follow one another are read as one.
            shown=run.as_planned(record) + course.SerializeToString(deterministic=True),
        )


TASKS = View(name="tasks", version=3, row=TaskRow, key_count=3, of_event=tasks_changed)
