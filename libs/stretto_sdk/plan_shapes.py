"""The shapes of the plan form: every field that people write, what it may be, and what it is for.

This is the form's one definition: `plan_form` reads with it, docs/plan.schema.json is made of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from stretto.common.v1.payload_pb2 import Payload
from stretto.run.v1 import plan_pb2 as pb

from stretto_sdk.fields import name_of
from stretto_sdk.plan_files.parameters import ANYTHING, PARAMETERS
from stretto_sdk.shapes import (
    At,
    Flag,
    Integer,
    Json,
    JsonObject,
    JsonSchema,
    ListOf,
    MapOf,
    Member,
    Number,
    Object,
    Span,
    Text,
    Word,
    parameter_or,
)

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
EXECUTORS = ("http", "process", "python", "sleep")
"""Those of Stretto; the kernel knows the same."""

NAME = Text(r"[A-Za-z0-9._#-]{1,128}", "must be 1-128 characters of [A-Za-z0-9._#-]")
WORD = Text(r"[A-Za-z0-9._-]{1,64}", "must be 1-64 characters of [A-Za-z0-9._-]")
EXECUTOR = Text(
    rf"{'|'.join(EXECUTORS)}|(?=[^.]*\.)[A-Za-z0-9._-]{{1,64}}",
    f"is not an executor: {', '.join(EXECUTORS)}, or a name of your own, which has a dot "
    "(acme.render)",
    words=EXECUTORS,
)
POINTER = Text(r"|/.*", 'must be a JSON Pointer: empty for the whole value, or like "/files/0"')
LABELS = MapOf(Text())


@dataclass(frozen=True, slots=True)
class Either:
    """A word alone, or an object that says more."""

    text: Text | Word
    longer: Object
    made: Any
    """What is made of the word alone."""
    like: str

    def read(self, value: object, at: At) -> Any:
        """Return what the word or the object stands for."""
        if isinstance(value, str):
            word = self.text.read(value, at)
            return None if word is None else self.made(word, at)
        if not isinstance(value, Mapping):
            at.wrong(f"must be {self.like}, not {name_of(value)}")
            return self.longer.make()
        return self.longer.read(value, at)

    def schema(self) -> JsonSchema:
        """Return the schema of either."""
        return parameter_or(self.text.schema(), self.longer.reference())


def _join_of(kind: pb.JoinKind.ValueType, at: At) -> pb.JoinRule:
    if kind == pb.JOIN_KIND_N_SUCCEEDED:
        at.wrong('needs a count: {"kind": "n_succeeded", "count": 2}')
    return pb.JoinRule(kind=kind)


DEPENDENCY = Either(
    Text(),
    Object(
        pb.Dependency,
        {
            "task": Member(Text(), "The task waited for.", required=True),
            "scope": Member(Word(SCOPES), "The task itself, or its whole subtree."),
        },
        "dependency",
    ),
    lambda name, _at: pb.Dependency(task=name),
    'a task\'s name or {"task": ..., "scope": ...}',
)
JOIN = Either(
    Word(JOINS),
    Object(
        pb.JoinRule,
        {
            "kind": Member(Word(JOINS), "The rule."),
            "count": Member(Integer(1), "For n_succeeded: how many."),
            "rest": Member(Word(REST), "What becomes of those that are no longer needed."),
        },
        "join",
    ),
    _join_of,
    "a join rule or an object",
)
_POINTER = Member(POINTER, "A JSON Pointer into it; empty: all of it.")


def _source(name: str, about: str, make: Any, members: Mapping[str, Member]) -> Object:
    tag = Member(Word({name: name}), about, into="source", required=True)
    return Object(
        lambda source=None, **read: make(**read), {"from": tag, **members}, f"from_{name}"
    )


SOURCES = {
    "literal": _source(
        "literal",
        "The value itself.",
        lambda value=None: pb.Binding(literal=value or Payload(json="null")),
        {"value": Member(Json(), "Any JSON value.")},
    ),
    "input": _source(
        "input",
        "The run's input.",
        lambda pointer="": pb.Binding(run_input=pb.RunInputRef(pointer=pointer)),
        {"pointer": _POINTER},
    ),
    "task": _source(
        "task",
        "The output of a task this one comes after.",
        lambda **read: pb.Binding(task_output=pb.TaskOutputRef(**read)),
        {"task": Member(Text(), "The task.", required=True), "pointer": _POINTER},
    ),
    "subtree": _source(
        "subtree",
        "The outputs of all that a task spawned, a list in spawn order.",
        lambda **read: pb.Binding(subtree_outputs=pb.SubtreeOutputsRef(**read)),
        {"task": Member(Text(), "The spawner.", required=True), "pointer": _POINTER},
    ),
    "board": _source(
        "board",
        "An entry of the run's blackboard as it is when the attempt is leased.",
        lambda **read: pb.Binding(board_entry=pb.BoardEntryRef(**read)),
        {
            "key": Member(Text(), "NAMESPACE/PATH, or TASK:NAMESPACE/PATH.", required=True),
            "pointer": _POINTER,
            "may_be_missing": Member(Flag(), "Null when it is not there; else the task fails."),
        },
    ),
}


@dataclass(frozen=True, slots=True)
class BindingShape:
    """Where a value comes from; whatever is not an object stands for itself."""

    def read(self, value: object, at: At) -> pb.Binding | None:
        """Return the binding."""
        if not isinstance(value, Mapping):
            literal = Json().read(value, at)
            return None if literal is None else pb.Binding(literal=literal)
        source = value.get("from")
        if source is None:
            at.within("from").wrong(
                f"is required, one of {', '.join(SOURCES)}; "
                'an object itself is written {"from": "literal", "value": {...}}'
            )
            return None
        if Word({word: word for word in SOURCES}).read(source, at.within("from")) is None:
            return None
        binding: pb.Binding | None = SOURCES[str(source)].read(value, at)
        return binding

    def schema(self) -> JsonSchema:
        """Return the schema of a binding."""
        return {"$ref": "#/$defs/binding"}

    @staticmethod
    def definition() -> JsonSchema:
        """Return the definition that `schema` refers to."""
        itself = {
            "type": ["array", "string", "number", "boolean", "null"],
            "description": "The value itself.",
        }
        return {"anyOf": [itself, *(each.reference() for each in SOURCES.values())]}


BINDING = BindingShape()
RETRY = Object(
    pb.RetryPolicy,
    {
        "max_attempts": Member(Integer(1, 10_000), "Attempts in all; default 3."),
        "initial_interval": Member(Span(), "Wait before the second attempt; default 1s."),
        "max_interval": Member(Span(), "Longest wait; default 60s."),
        "coefficient": Member(Number(1, 100), "Factor from one wait to the next; default 2."),
        "jitter": Member(Number(0, 1), "Share of the wait that varies; default 0.2."),
        "non_retryable_reasons": Member(
            ListOf(Text()), "Reasons of failure that another attempt cannot help."
        ),
    },
    "retry",
)
TIMEOUTS = Object(
    pb.Timeouts,
    {
        "queue": Member(Span(), "Ready until leased."),
        "attempt": Member(Span(), "One attempt, from lease to end."),
        "heartbeat": Member(Span(), "Without a sign of life; default 30s, 1s to 1h."),
        "task": Member(Span(), "All attempts together."),
    },
    "timeouts",
)
TASK = Object(
    pb.TaskSpec,
    {
        "name": Member(NAME, "Unique in the run: letters, digits, . _ # -", required=True),
        "executor": Member(EXECUTOR, "What executes it.", required=True),
        "arguments": Member(JsonObject(), "An object for the executor.", "arguments_json"),
        "after": Member(ListOf(DEPENDENCY), "What comes before.", "dependencies"),
        "join": Member(JOIN, "When what comes before is enough; default all_succeeded."),
        "inputs": Member(MapOf(BINDING, WORD), "Named bindings, resolved when it is leased."),
        "retry": Member(RETRY, "When and how often it is tried again."),
        "timeouts": Member(TIMEOUTS, "Its four limits in time."),
        "queue": Member(WORD, "The line it waits in."),
        "priority": Member(Integer(-100, 100), "Its place there: higher goes first."),
        "fairness_key": Member(WORD, "Whose share of the queue it takes; default the run's."),
        "required_labels": Member(LABELS, "What a worker must have."),
        "preferred_labels": Member(LABELS, "What a worker should have."),
        "on_failure": Member(Word(ON_FAILURE), "What its failure means for the run."),
        "clean_up": Member(Flag(), "It runs when everything else has ended, however."),
        "output_schema": Member(
            JsonObject(), "A JSON Schema that its result must hold to.", "output_schema_json"
        ),
        "may_spawn": Member(Flag(), "Its result may add tasks below it."),
    },
    "task",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Include:
    """Tasks of another file: under a prefix, with parameters of its own."""

    file: str = ""
    prefix: str = ""
    given: Mapping[str, object] = field(default_factory=dict)


INCLUDE = Object(
    Include,
    {
        "file": Member(Text(), "A plan file, relative to this one.", required=True),
        "prefix": Member(
            Text(r"[A-Za-z0-9._#-]{0,64}", "must be at most 64 characters of [A-Za-z0-9._#-]"),
            "Put before the names of its tasks.",
        ),
        "with": Member(MapOf(ANYTHING), "Its parameters.", into="given"),
    },
    "include",
)
INCLUDES = ListOf(INCLUDE)
FRAGMENT_MEMBERS = ("parameters", "include", "tasks")
"""What an included file may hold; the rest belongs to a run."""
RUN_MEMBERS = {
    "parameters": Member(PARAMETERS, "What may be set at the start: ${params.name}."),
    "include": Member(INCLUDES, "Tasks of other files."),
    "name": Member(Text(), "For people."),
    "labels": Member(LABELS, "Words to find the run by."),
    "input": Member(Json(), "The run's input, unless the start gives another."),
    "tasks": Member(ListOf(TASK), "The tasks, in any order."),
    "output": Member(BINDING, "What the run yields; default null."),
    "output_schema": Member(
        JsonObject(), "A JSON Schema that the output must hold to.", "output_schema_json"
    ),
    "fairness_key": Member(WORD, "Whose share of their queues its tasks take."),
    "failure_policy": Member(Word(FAILURE_POLICIES), "What a failed task means for the rest."),
    "run_timeout": Member(Span(), "From start to end of the run, clean-up excepted."),
    "cancel_grace": Member(Span(), "How long attempts may take to stop; default 10s."),
    "clean_up_timeout": Member(Span(), "How long clean-up may take; default 10m."),
    "task_count_max": Member(
        Integer(1), "The most tasks the run may ever hold; default 10,000, at most 1,000,000."
    ),
    "growing": Member(Flag(), "More tasks will be added while it runs."),
    "slice_timeout": Member(Span(), "How long a growing plan waits for its next slice."),
}
