"""Plans as people write them: the JSON form of a task graph, for plan files, dicts and spawns.

Owns the names and shapes of that form (docs/plan-files.md), and its translation into the contract.
What a plan means (unknown dependencies, cycles, limits) is judged by the kernel alone; here only
the form is, and all mistakes are reported at once, each with its path.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from stretto.common.v1.payload_pb2 import Payload
from stretto.run.v1 import plan_pb2 as pb
from stretto_core.errors import InvalidArgument

from stretto_sdk.fields import Fields, Mistakes, name_of
from stretto_sdk.strict_json import parse_json, to_json

FAILURE_POLICIES = {
    "continue": pb.FAILURE_POLICY_CONTINUE,
    "fail_fast": pb.FAILURE_POLICY_FAIL_FAST,
}
ON_FAILURE = {
    "fail": pb.ON_FAILURE_FAIL,
    "ignore": pb.ON_FAILURE_IGNORE,
    "replan": pb.ON_FAILURE_REPLAN,
    "escalate": pb.ON_FAILURE_ESCALATE,
}
SCOPES = {"task": pb.DEPENDENCY_SCOPE_TASK, "subtree": pb.DEPENDENCY_SCOPE_SUBTREE}
JOINS = {
    "all_succeeded": pb.JOIN_KIND_ALL_SUCCEEDED,
    "all_done": pb.JOIN_KIND_ALL_DONE,
    "any_succeeded": pb.JOIN_KIND_ANY_SUCCEEDED,
    "n_succeeded": pb.JOIN_KIND_N_SUCCEEDED,
}
REST = {"ignored": pb.JOIN_REST_IGNORED, "cancelled": pb.JOIN_REST_CANCELLED}
PLAN_BYTES_MAX = 64 << 20
"""Of a plan's text; one larger than a message goes to the kernel in slices."""
SOURCES = ("literal", "input", "task", "subtree")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunForm:
    """A run as a plan file describes it. has_input: whether the file itself gave an input."""

    graph: pb.TaskGraph
    name: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    input: object = None
    has_input: bool = False


def parse_run_text(text: bytes | str, *, source: str) -> RunForm:
    """Return the run of a plan file's text. Raises InvalidArgument with every mistake in it."""
    return parse_run(parse_json(text, source=source, bytes_max=PLAN_BYTES_MAX), source=source)


def parse_run(value: object, *, source: str = "the plan") -> RunForm:
    """Return the run of a plan's parsed JSON. Raises InvalidArgument with every mistake in it.

    source: what it is, as a person calls it; it opens the message.
    """
    mistakes = Mistakes()
    fields = Fields(value, "", mistakes)
    name = fields.text("name")
    labels = fields.text_map("labels")
    has_input = fields.has("input")
    graph = _graph(fields)
    fields.finish()
    mistakes.raise_if_any(source)
    return RunForm(
        graph=graph, name=name, labels=labels, input=fields.value("input"), has_input=has_input
    )


def parse_tasks(value: object, *, source: str = "the tasks") -> list[pb.TaskSpec]:
    """Return the tasks of a slice or a spawn, a list of objects in the form of a plan's `tasks`.

    Raises InvalidArgument with every mistake in it.
    """
    mistakes = Mistakes()
    if not isinstance(value, Sequence) or isinstance(value, str):
        mistakes.add("", f"must be a list of tasks, not {name_of(value)}")
        value = []
    specs = [_task(each, f"[{index}]", mistakes) for index, each in enumerate(value)]
    mistakes.raise_if_any(source)
    return specs


def form_path(contract_path: str) -> str:
    """Return the path in this form of a field that the kernel names by its path in the contract.

    `task_graph.tasks[1].dependencies[0].task` is `tasks[1].after[0]` here.
    """
    path = contract_path.removeprefix("task_graph.").replace("arguments_json", "arguments")
    return re.sub(r"dependencies\[([0-9]+)\](\.task$)?", r"after[\1]", path)


def payload_of(value: object, *, source: str = "the value") -> Payload:
    """Return a value as a JSON payload. Raises InvalidArgument when it cannot be JSON."""
    return Payload(json=to_json(value, source=source))


def _graph(fields: Fields) -> pb.TaskGraph:
    if not fields.has("tasks") and not fields.has("growing"):
        fields.wrong("tasks", "is required: a list of at least one task")
    return pb.TaskGraph(
        tasks=fields.each("tasks", _task),
        growing=fields.boolean("growing"),
        slice_timeout=fields.duration("slice_timeout"),
        output=_binding_of(fields, "output"),
        failure_policy=fields.word(
            "failure_policy", FAILURE_POLICIES, pb.FAILURE_POLICY_UNSPECIFIED
        ),
        run_timeout=fields.duration("run_timeout"),
        cancel_grace=fields.duration("cancel_grace"),
        clean_up_timeout=fields.duration("clean_up_timeout"),
        task_count_max=fields.integer("task_count_max", low=1),
    )


def _task(value: object, path: str, mistakes: Mistakes) -> pb.TaskSpec:
    fields = Fields(value, path, mistakes)
    spec = pb.TaskSpec(
        name=fields.text("name", required=True),
        executor=fields.text("executor", required=True),
        arguments_json=_object_text(fields, "arguments"),
        dependencies=fields.each("after", _dependency),
        join=_join(fields),
        inputs={
            key: binding
            for at, key, each in fields.members("inputs")
            if (binding := _binding(each, at, mistakes)) is not None
        },
        retry=_retry(fields),
        timeouts=_timeouts(fields),
        queue=fields.text("queue"),
        priority=fields.integer("priority", low=-100, high=100),
        required_labels=fields.text_map("required_labels"),
        preferred_labels=fields.text_map("preferred_labels"),
        on_failure=fields.word("on_failure", ON_FAILURE, pb.ON_FAILURE_UNSPECIFIED),
        clean_up=fields.boolean("clean_up"),
        output_schema_json=_object_text(fields, "output_schema"),
        may_spawn=fields.boolean("may_spawn"),
    )
    fields.finish()
    return spec


def _dependency(value: object, path: str, mistakes: Mistakes) -> pb.Dependency:
    if isinstance(value, str):
        return pb.Dependency(task=value)
    if not isinstance(value, Mapping):
        mistakes.add(
            path, f'must be a task\'s name or {{"task": ..., "scope": ...}}, not {name_of(value)}'
        )
        return pb.Dependency()
    fields = Fields(value, path, mistakes)
    dependency = pb.Dependency(
        task=fields.text("task", required=True),
        scope=fields.word("scope", SCOPES, pb.DEPENDENCY_SCOPE_UNSPECIFIED),
    )
    fields.finish()
    return dependency


def _join(fields: Fields) -> pb.JoinRule | None:
    value = fields.value("join")
    if value is None:
        return None
    if isinstance(value, str):
        kind = fields.word("join", JOINS, pb.JOIN_KIND_UNSPECIFIED)
        if kind == pb.JOIN_KIND_N_SUCCEEDED:
            fields.wrong("join", 'needs a count: {"kind": "n_succeeded", "count": 2}')
        return pb.JoinRule(kind=kind)
    within = Fields(value, fields.at("join"), fields.mistakes)
    rule = pb.JoinRule(
        kind=within.word("kind", JOINS, pb.JOIN_KIND_UNSPECIFIED),
        count=within.integer("count", low=1),
        rest=within.word("rest", REST, pb.JOIN_REST_UNSPECIFIED),
    )
    within.finish()
    return rule


def _retry(fields: Fields) -> pb.RetryPolicy | None:
    if not fields.has("retry"):
        return None
    within = Fields(fields.value("retry"), fields.at("retry"), fields.mistakes)
    policy = pb.RetryPolicy(
        max_attempts=within.integer("max_attempts", low=1, high=10_000),
        initial_interval=within.duration("initial_interval"),
        max_interval=within.duration("max_interval"),
        coefficient=within.number("coefficient") or 0.0,
        jitter=within.number("jitter"),
        non_retryable_reasons=within.texts("non_retryable_reasons"),
    )
    within.finish()
    return policy


def _timeouts(fields: Fields) -> pb.Timeouts | None:
    if not fields.has("timeouts"):
        return None
    within = Fields(fields.value("timeouts"), fields.at("timeouts"), fields.mistakes)
    timeouts = pb.Timeouts(
        queue=within.duration("queue"),
        attempt=within.duration("attempt"),
        heartbeat=within.duration("heartbeat"),
        task=within.duration("task"),
    )
    within.finish()
    return timeouts


def _binding_of(fields: Fields, name: str) -> pb.Binding | None:
    if not fields.has(name):
        return None
    return _binding(fields.value(name), fields.at(name), fields.mistakes)


def _binding(value: object, path: str, mistakes: Mistakes) -> pb.Binding | None:
    if not isinstance(value, Mapping):
        return _literal(value, path, mistakes)
    fields = Fields(value, path, mistakes)
    source = fields.word("from", {word: word for word in SOURCES}, "")
    if not source:
        if not fields.has("from"):
            fields.wrong(
                "from",
                f"is required, one of {', '.join(SOURCES)}; "
                'an object itself is written {"from": "literal", "value": {...}}',
            )
        return None
    binding = _sourced(source, fields)
    fields.finish()
    return binding


def _sourced(source: str, fields: Fields) -> pb.Binding | None:
    if source == "literal":
        return _literal(fields.value("value"), fields.at("value"), fields.mistakes)
    pointer = fields.text("pointer")
    if pointer and not pointer.startswith("/"):
        fields.wrong("pointer", 'is a JSON Pointer: empty for the whole value, or like "/files/0"')
    if source == "input":
        return pb.Binding(run_input=pb.RunInputRef(pointer=pointer))
    task = fields.text("task", required=True)
    if source == "task":
        return pb.Binding(task_output=pb.TaskOutputRef(task=task, pointer=pointer))
    return pb.Binding(subtree_outputs=pb.SubtreeOutputsRef(task=task, pointer=pointer))


def _literal(value: object, path: str, mistakes: Mistakes) -> pb.Binding | None:
    try:
        return pb.Binding(literal=payload_of(value, source="it"))
    except InvalidArgument as error:
        mistakes.add(path, error.message)
        return None


def _object_text(fields: Fields, name: str) -> str:
    value = fields.value(name)
    if value is None:
        return ""
    if not isinstance(value, Mapping):
        fields.wrong(name, f"must be an object, not {name_of(value)}")
        return ""
    try:
        return to_json(dict(value), source="it")
    except InvalidArgument as error:
        fields.wrong(name, error.message)
        return ""
