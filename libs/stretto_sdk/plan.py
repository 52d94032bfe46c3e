"""Builds a plan in Python: tasks that refer to each other as objects instead of by name.

    >>> plan = Plan("sums")
    >>> numbers = plan.task("numbers", executor="python", function="tasks:numbers")
    >>> total = plan.task(
    ...     "total", executor="python", function="tasks:total",
    ...     after=[numbers], inputs={"numbers": numbers.output("/list")},
    ... )
    >>> plan.output = total.output()

The builder only writes the JSON form of stretto_sdk.plan_form; that module reads and checks it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from difflib import get_close_matches
from inspect import Parameter, signature
from pathlib import Path
from typing import Any

from stretto.run.v1.plan_pb2 import TaskGraph
from stretto_core.errors import InvalidArgument

from stretto_sdk.plan_files.read import read_plan_file, read_plan_text
from stretto_sdk.plan_form import RunForm, parse_run

Span = str | timedelta
"""A span of time: "500ms", "30s", "1m30s", "2h", or a timedelta."""


@dataclass(frozen=True, slots=True)
class Binding:
    """Where a value comes from; made by Plan.input, Task.output and Task.subtree_outputs."""

    form: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Subtree:
    """A task and everything spawned below it, as a dependency."""

    task: str


@dataclass(frozen=True, slots=True)
class Task:
    """A task of a plan: what later tasks depend on and read from."""

    name: str

    @property
    def subtree(self) -> Subtree:
        """The task and all it spawns: `after=[listing.subtree]`."""
        return Subtree(self.name)

    def output(self, pointer: str = "") -> Binding:
        """Return its output, or the part a JSON Pointer names: `a.output("/n")`."""
        return Binding({"from": "task", "task": self.name, "pointer": pointer})

    def subtree_outputs(self, pointer: str = "") -> Binding:
        """Return what all it spawned yielded, a list in spawn order; needs `after=[a.subtree]`."""
        return Binding({"from": "subtree", "task": self.name, "pointer": pointer})


@dataclass(slots=True)
class Plan:
    """A task graph under construction, with the run's name, labels and policies.

    >>> plan = Plan("hello", failure_policy="fail_fast", run_timeout="5m")
    >>> greet = plan.task("greet", executor="process", argv=["echo", "hello"], output="text")
    >>> plan.output = greet.output()

    failure_policy: "continue" (independent branches finish) or "fail_fast".
    output: what the run yields; None yields null. output_schema: a JSON Schema it must hold to.
    fairness_key: whose share of their queues its tasks take, where they do not say themselves.
    """

    name: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    output: Binding | None = None
    output_schema: Mapping[str, object] | None = None
    fairness_key: str | None = None
    failure_policy: str | None = None
    run_timeout: Span | None = None
    cancel_grace: Span | None = None
    clean_up_timeout: Span | None = None
    task_count_max: int | None = None
    growing: bool = False
    slice_timeout: Span | None = None
    _tasks: list[dict[str, object]] = field(default_factory=list, repr=False)

    @staticmethod
    def input(pointer: str = "") -> Binding:
        """Return the run's input, or the part a JSON Pointer names: `plan.input("/directory")`."""
        return Binding({"from": "input", "pointer": pointer})

    @staticmethod
    def board(key: str, pointer: str = "", *, may_be_missing: bool = False) -> Binding:
        """Return an entry of the run's blackboard as it is when the attempt is leased.

        >>> plan.task("draw", executor="python", function="draw",
        ...           inputs={"goal": plan.board("context/goal")})

        may_be_missing: null when it is not there; else the task that needs it fails.
        """
        return Binding(
            {"from": "board", "key": key, "pointer": pointer, "may_be_missing": may_be_missing}
        )

    def task(  # noqa: PLR0913 - the fields of a task, each by its name
        self,
        name: str,
        *,
        executor: str,
        arguments: Mapping[str, object] | None = None,
        after: Iterable[Task | Subtree | str] = (),
        inputs: Mapping[str, object] | None = None,
        join: str | Mapping[str, object] | None = None,
        retry: Mapping[str, object] | None = None,
        timeouts: Mapping[str, Span] | None = None,
        queue: str | None = None,
        priority: int | None = None,
        fairness_key: str | None = None,
        required_labels: Mapping[str, str] | None = None,
        preferred_labels: Mapping[str, str] | None = None,
        on_failure: str | None = None,
        clean_up: bool = False,
        output_schema: Mapping[str, object] | None = None,
        may_spawn: bool = False,
        **more_arguments: Any,
    ) -> Task:
        """Add a task and return it. Keywords it does not know are arguments of the executor.

        >>> plan = Plan()
        >>> count = plan.task("count", executor="process", argv=["wc", "-l", "README.md"],
        ...                   output="text", retry={"max_attempts": 5}, timeouts={"attempt": "30s"})
        >>> report = plan.task("report", executor="python", function="tasks:report",
        ...                    after=[count], inputs={"text": count.output(), "limit": 10})

        after: tasks, subtrees (`task.subtree`) or names. inputs: bindings, or plain JSON values.
        output_schema: a JSON Schema; a result that violates it is a failed attempt.
        Mistakes are found by `to_proto` and `Client.start`, all at once, but for a keyword that is
        nearly one of these: it raises TypeError here. An argument of such a name goes into
        `arguments`.
        """
        _refuse_misspelt(name, more_arguments)
        if isinstance(after, str | Task | Subtree):  # A text is iterable, too: by its letters.
            raise TypeError(f"task {name!r}: after is a list, also of one: after=[{after!r}]")
        form = {
            "name": name,
            "executor": executor,
            "arguments": {**(arguments or {}), **more_arguments} or None,
            "after": [_dependency_form(each) for each in after],
            "inputs": {key: _binding_form(value) for key, value in (inputs or {}).items()},
            "join": join,
            "retry": retry,
            "timeouts": timeouts,
            "queue": queue,
            "priority": priority,
            "fairness_key": fairness_key,
            "required_labels": required_labels,
            "preferred_labels": preferred_labels,
            "on_failure": on_failure,
            "clean_up": clean_up,
            "output_schema": output_schema,
            "may_spawn": may_spawn,
        }
        self._tasks.append(_given(form))
        return Task(name)

    def to_form(self) -> dict[str, object]:
        """Return the plan as the dict a plan file would hold."""
        form = {
            "name": self.name,
            "labels": self.labels,
            "tasks": list(self._tasks),
            "output": None if self.output is None else dict(self.output.form),
            "output_schema": self.output_schema,
            "fairness_key": self.fairness_key,
            "failure_policy": self.failure_policy,
            "run_timeout": self.run_timeout,
            "cancel_grace": self.cancel_grace,
            "clean_up_timeout": self.clean_up_timeout,
            "task_count_max": self.task_count_max,
            "growing": self.growing,
            "slice_timeout": self.slice_timeout,
        }
        return _given(form)

    def to_run(self) -> RunForm:
        """Return the checked run form. Raises InvalidArgument with every mistake."""
        return parse_run(self.to_form())

    def to_proto(self) -> TaskGraph:
        """Return the task graph. Raises InvalidArgument with every mistake."""
        return self.to_run().graph


AnyPlan = Plan | Mapping[str, object] | str | Path | TaskGraph | RunForm
"""A Plan, the dict or text of a plan file, the path of one, or what those are read into."""


def form_of(plan: AnyPlan) -> RunForm:
    """Return the checked run form of a plan. Raises InvalidArgument with every mistake."""
    match plan:
        case Plan():
            return plan.to_run()
        case RunForm():
            return plan
        case TaskGraph():
            return RunForm(graph=plan)
        case str() if "\n" not in plan and plan.endswith((".yaml", ".yml", ".json")):
            raise InvalidArgument(f"a text is a plan itself: for a file give Path({plan!r})")
        case str():
            return read_plan_text(plan, source="the plan")
        case Path():
            return read_plan_file(plan)
        case _:
            return parse_run(plan)


def _given(form: Mapping[str, object]) -> dict[str, object]:
    """Return the form without what nobody gave: a default would only be noise in a plan file."""
    return {key: value for key, value in form.items() if value not in (None, "", False, [], {})}


def _dependency_form(dependency: Task | Subtree | str) -> object:
    if isinstance(dependency, Subtree):
        return {"task": dependency.task, "scope": "subtree"}
    return dependency.name if isinstance(dependency, Task) else dependency


def _binding_form(value: object) -> Mapping[str, object]:
    return value.form if isinstance(value, Binding) else {"from": "literal", "value": value}


def _refuse_misspelt(task: str, keywords: Mapping[str, object]) -> None:
    """Raise TypeError for a keyword that is surely meant to be a field of the task."""
    for keyword in keywords:
        # A typo begins as the word and is about as long; `port` is no `priority`.
        alike = [
            name
            for name in _FIELDS
            if name[:2] == keyword[:2] and abs(len(name) - len(keyword)) <= 2
        ]
        near = get_close_matches(keyword, alike, n=1, cutoff=0.66)
        if near and keyword not in _ARGUMENTS:
            raise TypeError(
                f"task {task!r}: {keyword}=: did you mean {near[0]}=? An argument of the executor "
                f"of that name goes into arguments={{{keyword!r}: ...}}"
            )


_FIELDS = tuple(
    parameter.name
    for parameter in signature(Plan.task).parameters.values()
    if parameter.kind is Parameter.KEYWORD_ONLY
)
_ARGUMENTS = frozenset({"timeout", "input", "output", "label"})
"""What executors call their own although a field has nearly that name."""
