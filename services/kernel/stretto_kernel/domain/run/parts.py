"""Work on the tasks of a plan in parts, so that whoever has it done can let others run in between.

Such work is a generator: it yields between parts of a few milliseconds and returns what came of it.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from typing import TypeAlias, TypeVar

from stretto.run.v1 import plan_pb2 as pb

PART_TASKS = 50
PART_BYTES = 32 * 1024

Result = TypeVar("Result")
Work: TypeAlias = Generator[None, None, Result]


def parts_of(tasks: Sequence[pb.TaskSpec]) -> Iterator[list[pb.TaskSpec]]:
    """Yield the tasks in order, so many at a time that work on them is bounded."""
    part: list[pb.TaskSpec] = []
    part_bytes = 0
    for task in tasks:
        part.append(task)
        part_bytes += task.ByteSize()
        if len(part) >= PART_TASKS or part_bytes >= PART_BYTES:
            yield part
            part, part_bytes = [], 0
    if part:
        yield part


def has_parts(tasks: Sequence[pb.TaskSpec]) -> bool:
    """Whether the tasks are more than one part."""
    return len(tasks) > PART_TASKS or sum(task.ByteSize() for task in tasks) > PART_BYTES


def whole(work: Work[Result]) -> Result:
    """Do the work at once and return what comes of it."""
    while True:
        try:
            next(work)
        except StopIteration as done:
            result: Result = done.value
            return result
