"""Plans as people write them: a task graph from plan files, dicts and spawns.

Translates the form that `plan_shapes` declares (docs/plan-files.md) into the contract. What a plan
means (unknown dependencies, cycles, limits) is judged by the kernel, and of files by `relations`
before; here only the form is, and all mistakes are reported at once, each with its path.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from stretto.common.v1.payload_pb2 import Payload
from stretto.run.v1 import plan_pb2 as pb
from stretto_core.errors import InvalidArgument, Refusal

from stretto_sdk.fields import Mistakes, name_of
from stretto_sdk.form_paths import form_path
from stretto_sdk.plan_files.mistakes import Located, located_refusal
from stretto_sdk.plan_files.parameters import (
    Unfolding,
    read_parameters,
    values_of,
    with_parameters,
)
from stretto_sdk.plan_shapes import RUN_MEMBERS, TASK
from stretto_sdk.shapes import At, Object
from stretto_sdk.strict_json import to_json


@dataclass(frozen=True, slots=True, kw_only=True)
class RunForm:
    """A run as a plan file describes it. has_input: whether the file itself gave an input.

    source, located: of a file, what it is called and where its fields stand.
    """

    graph: pb.TaskGraph
    name: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    input: object = None
    has_input: bool = False
    source: str = field(default="the plan", compare=False)
    located: Located | None = field(default=None, compare=False, repr=False)

    def told(self, refusal: Refusal) -> Refusal:
        """Return the kernel's refusal of this run by its form's fields; of a file's, with lines."""
        if self.located is not None:
            return located_refusal(refusal, self.source, self.located)
        if not isinstance(refusal, InvalidArgument) or not refusal.violations:
            return refusal
        mistakes = Mistakes()
        for each in refusal.violations:
            mistakes.add(form_path(each.field), each.description)
        told = mistakes.refusal(self.source)
        told.reason_word = refusal.reason_word
        return told


def _run(
    name: str = "",
    labels: Mapping[str, str] | None = None,
    input: object = None,
    parameters: object = None,
    include: object = None,
    **graph: Any,
) -> RunForm:
    return RunForm(graph=pb.TaskGraph(**graph), name=name, labels=labels or {})


RUN = Object(_run, RUN_MEMBERS, "run")


def parse_run(value: object, *, source: str = "the plan") -> RunForm:
    """Return the run of a plan's parsed JSON. Raises InvalidArgument with every mistake in it.

    source: what it is, as a person calls it; it opens the message. Its parameters have their
    defaults; what it includes can be found by `plan_files.read` only.
    """
    mistakes = Mistakes()
    if isinstance(value, Mapping):
        if value.get("include") is not None:
            mistakes.add("include", "works in a plan file only: nothing else has a directory")
        if value.get("parameters") is not None:
            declared = read_parameters(value["parameters"], mistakes)
            values = values_of(
                declared, {}, lambda name, why: mistakes.add(f"parameters.{name}", why)
            )
            value = with_parameters(run_members(value), values, mistakes.add, Unfolding())
    form = read_run(value, mistakes)
    mistakes.raise_if_any(source)
    return form


def run_members(value: Mapping[str, object]) -> dict[str, object]:
    """Return a plan without what has been done once its parameters and includes are in."""
    return {key: each for key, each in value.items() if key not in ("parameters", "include")}


def read_run(value: object, mistakes: Mistakes) -> RunForm:
    """Return the run of a plan's parsed JSON as far as it can be read; the rest is noted."""
    form = RUN.read(value, At(mistakes))
    if not isinstance(value, Mapping):
        return RunForm(graph=pb.TaskGraph())
    if not value.get("tasks") and not form.graph.growing:
        mistakes.add("tasks", "is required: a list of at least one task")
    given = value.get("input")
    return RunForm(
        graph=form.graph,
        name=form.name,
        labels=form.labels,
        input=given,
        has_input=given is not None,
    )


def parse_tasks(value: object, *, source: str = "the tasks") -> list[pb.TaskSpec]:
    """Return the tasks of a slice or a spawn, a list of objects in the form of a plan's `tasks`.

    Raises InvalidArgument with every mistake in it.
    """
    mistakes = Mistakes()
    at = At(mistakes)
    if isinstance(value, tuple):
        value = list(value)
    if isinstance(value, list):
        specs = [TASK.read(each, at.within(index)) for index, each in enumerate(value)]
    else:
        at.wrong(f"must be a list of tasks, not {name_of(value)}")
    mistakes.raise_if_any(source)
    return specs


def payload_of(value: object, *, source: str = "the value") -> Payload:
    """Return a value as a JSON payload. Raises InvalidArgument when it cannot be JSON."""
    return Payload(json=to_json(value, source=source))
