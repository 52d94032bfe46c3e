"""The readers of the arguments of `sleep` and `python`, and the check of all that a plan says.

A task of an executor of somebody's own (its name has a dot) is not looked at: only its worker knows
what it may say.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from google.protobuf.duration_pb2 import Duration
from stretto.run.v1 import plan_pb2 as pb

from stretto_sdk.arguments.http import read_task
from stretto_sdk.arguments.placeholders import Placeholders
from stretto_sdk.arguments.process import read_command
from stretto_sdk.durations import EXPLANATION
from stretto_sdk.fields import Fields, Mistakes
from stretto_sdk.strict_json import parse_json

TASKS_CHECKED_MAX: Final = 20_000
"""Half a second of work. What is larger was written by a program; of the rest the worker tells."""


def read_span(fields: Fields) -> Duration | None:
    """Return how long a task sleeps, None after a mistake."""
    span = fields.duration("duration")
    if not fields.has("duration"):
        fields.wrong("duration", f"is required: {EXPLANATION}")
    fields.finish()
    return span


def read_function(fields: Fields) -> str:
    """Return the name of the function that a task calls, "" after a mistake."""
    name = fields.text("function", required=True)
    fields.finish()
    return name


_READERS: Final[Mapping[str, Callable[[Fields, Placeholders], object]]] = {
    "http": read_task,
    "process": read_command,
    "python": lambda fields, fill: read_function(fields),
    "sleep": lambda fields, fill: read_span(fields),
}


def check_arguments(graph: pb.TaskGraph, mistakes: Mistakes) -> None:
    """Note every mistake in the arguments of a plan's first tasks, by the paths of the form."""
    mistaken = {path for path, _, _ in mistakes.found()}
    for number, task in enumerate(graph.tasks[:TASKS_CHECKED_MAX]):
        read = _READERS.get(task.executor)
        path = f"tasks[{number}].arguments"
        if read is None or path in mistaken:
            continue
        value = parse_json(task.arguments_json or "{}", source=path)
        read(Fields(value, path, mistakes), Placeholders.of_names(task.inputs, mistakes))
