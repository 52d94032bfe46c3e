"""Output schemas: what may be one, and what becomes of a result or output that violates it."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from stretto.common.v1.payload_pb2 import Payload
from stretto.run.v1 import events_pb2 as ev
from stretto.run.v1 import plan_pb2 as plan
from stretto_core.errors import InvalidArgument
from stretto_kernel.domain.run.output_schema import SCHEMA_BYTES_MAX, violations
from stretto_kernel.domain.run.refusals import LeaseLost, ResultConflict

from tests.model.oracle import check_fold
from tests.model.runs import Story, graph, kinds, started, task

COUNT = {
    "type": "object",
    "required": ["count"],
    "properties": {"count": {"type": "integer", "minimum": 1}},
}


def checked(schema: object = COUNT, **rest: object) -> plan.TaskSpec:
    spec = task("a", **rest)  # type: ignore[arg-type]
    spec.output_schema_json = json.dumps(schema)
    return spec


def refused(schema: str) -> str:
    spec = task("a")
    spec.output_schema_json = schema
    with pytest.raises(InvalidArgument) as caught:
        Story().start(graph(spec))
    (violation,) = caught.value.violations
    assert violation.field == "task_graph.tasks[0].output_schema_json"
    return violation.description


def test_a_result_that_violates_its_schema_is_a_failed_attempt_and_tried_again() -> None:
    story = started(checked(retry=plan.RetryPolicy(max_attempts=2)))
    story.lease("a")
    (failed,) = story.complete("a", '{"count": 0}')
    assert isinstance(failed, ev.AttemptFailed)
    assert failed.failure.reason == "OUTPUT_SCHEMA_VIOLATED"
    assert failed.failure.retryable
    assert "at /count: 0 is less than the minimum of 1" in failed.failure.message
    assert story.complete("a", '{"count": 0}', epoch=1) == (), "sent again it is answered as before"
    with pytest.raises(ResultConflict):
        story.complete("a", '{"count": 1}', epoch=1)
    story.wait(10)
    story.lease("a")
    assert kinds(story.complete("a", '{"count": 1}')) == ["AttemptSucceeded", "RunSucceeded"]
    check_fold(story)


def test_the_policy_may_forbid_another_attempt() -> None:
    retry = plan.RetryPolicy(non_retryable_reasons=["OUTPUT_SCHEMA_VIOLATED"])
    story = started(checked(retry=retry))
    story.lease("a")
    assert kinds(story.complete("a", '{"count": "one"}')) == ["AttemptFailed", "RunFailed"]


def test_a_late_result_that_violates_is_refused_since_its_try_was_counted() -> None:
    story = started(checked())
    story.lease("a")
    story.lose("a")
    with pytest.raises(LeaseLost):
        story.complete("a", "{}")
    assert kinds(story.complete("a", '{"count": 5}'))[0] == "AttemptSucceeded"


def test_an_output_that_violates_its_schema_fails_the_run() -> None:
    output = plan.Binding(task_output=plan.TaskOutputRef(task="a"))
    story = started(task("a"), output=output, output_schema_json=json.dumps(COUNT))
    story.lease("a")
    *_, end = story.complete("a", '{"count": {}}')
    assert isinstance(end, ev.RunFailed)
    assert end.failure.reason == "OUTPUT_SCHEMA_VIOLATED"
    assert end.failure.message.startswith("the run's output: it violates its output schema: at /")


def test_a_schema_without_an_output_is_refused() -> None:
    with pytest.raises(InvalidArgument) as caught:
        Story().start(graph(task("a"), output_schema_json="{}"))
    assert caught.value.violations[0].field == "task_graph.output_schema_json"


def test_only_inline_json_can_be_judged() -> None:
    assert violations("true", Payload(json="5")) == ""
    assert "not JSON" in violations("true", Payload(data=b"5"))


def test_the_first_violations_are_shown_by_their_pointers() -> None:
    schema = json.dumps({"additionalProperties": {"type": "null"}})
    shown = violations(schema, Payload(json=json.dumps({f"a/b~{n}": n for n in range(100)})))
    assert shown.count("at /") == 5
    assert "at /a~1b~00: 0 is not of type" in shown


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        ("nonsense", "is no JSON Schema"),
        ("[]", "is no JSON Schema"),
        ('{"type": "nope"}', "is not valid"),
        ('{"pattern": "("}', "regex"),
        ('{"pattern": "(?=look)a"}', "regex"),
        ('{"pattern": "(a)\\\\1"}', "regex"),
        ('{"pattern": "a{1000}{1000}{1000}"}', "regex"),
        ('{"$ref": "https://example.com/schema"}', "into this schema"),
        ('{"$ref": "other.json#/a"}', "into this schema"),
        ('{"$ref": "#/$defs/nobody"}', "leads nowhere"),
        ('{"$ref": "#"}', "leads back"),
        ('{"properties": {"child": {"$ref": "#/properties/child"}}}', "leads back"),
        ('{"$schema": "https://example.com/dialect"}', "$schema must be one of"),
        ('{"$dynamicRef": "#a"}', "not taken"),
        ('{"not": {"$id": "https://example.com/other"}}', "at the top only"),
        (json.dumps({"enum": ["x" * SCHEMA_BYTES_MAX]}), "is larger than"),
        ('{"not": ' * 70 + "true" + "}" * 70, "nested more than"),
    ],
)
def test_what_is_no_schema_to_be_used(schema: str, why: str) -> None:
    assert why in refused(schema)


def test_references_that_double_themselves_are_refused() -> None:
    names = [f"a{number}" for number in range(31)]
    doubled = {
        name: {"allOf": [{"$ref": f"#/$defs/{below}"}, {"$ref": f"#/$defs/{below}"}]}
        for name, below in pairwise(names)
    }
    schema = {"$ref": "#/$defs/a0", "$defs": {**doubled, names[-1]: {"type": "null"}}}
    assert "more than 1000" in refused(json.dumps(schema))


def test_what_looks_like_a_reference_in_a_value_is_none() -> None:
    schema = {"const": {"$ref": "https://example.com"}, "$defs": {"unused": True}}
    story = started(checked(schema))
    story.lease("a")
    assert kinds(story.complete("a", json.dumps(schema["const"])))[0] == "AttemptSucceeded"


def test_judging_a_value_is_bounded_whatever_a_plan_and_a_result_say() -> None:
    every = json.dumps({"items": {"anyOf": [{"const": number} for number in range(900)]}})
    parts = Payload(json=json.dumps([899] * 10_000))
    assert "too many to be judged" in violations(every, parts)
    assert violations(every, Payload(json=json.dumps([899] * 500))) == ""
    objects = json.dumps({"items": {"enum": [{"a": number} for number in range(900)]}})
    assert "too many to be judged" in violations(objects, Payload(json=json.dumps([{}] * 600)))
    # Listing all of these takes ten seconds: the first is told alone.
    found = violations(every, Payload(json=json.dumps([5_000] * 500)))
    assert found.startswith("at /0: ") and "at /1: " not in found
