"""Values that are blobs: bound, composed, digested, named by facts; and artifacts."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping

import pytest
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message
from stretto.common.v1.failure_pb2 import Failure
from stretto.common.v1.payload_pb2 import Artifact, BlobRef, ComposedValue, Payload, ValuePart
from stretto.run.v1 import events_pb2 as ev
from stretto.run.v1 import plan_pb2 as plan
from stretto_core.errors import InvalidArgument
from stretto_core.ids import TaskName
from stretto_kernel.domain.run import commands as cmd
from stretto_kernel.domain.run import queries
from stretto_kernel.domain.run.blob_names import blob_name, in_event
from stretto_kernel.domain.run.canonical import digest_of, success_digest
from stretto_kernel.domain.run.refusals import ResultConflict
from stretto_kernel.domain.run.resource import to_task

from tests.model.runs import Story, below, graph, started, task

A = TaskName("a")


def ref(text: str) -> BlobRef:
    return BlobRef(digest=hashlib.sha256(text.encode()).digest(), size_bytes=100_000)


def json_blob(text: str) -> Payload:
    return Payload(blob=ref(text), content_type="application/json")


def output(name: str, pointer: str = "") -> plan.Binding:
    return plan.Binding(task_output=plan.TaskOutputRef(task=name, pointer=pointer))


def finish(story: Story, name: str, result: Payload, **fields: object) -> tuple[Message, ...]:
    story.lease(name)
    return report(story, name, result, **fields)


def report(story: Story, name: str, result: Payload, **fields: object) -> tuple[Message, ...]:
    epoch = story.state.tasks[TaskName(name)].epoch
    return story.do(
        cmd.Complete(
            now_ns=story.now_ns,
            task=TaskName(name),
            epoch=epoch,
            result=result,
            **fields,  # type: ignore[arg-type]
        )
    )


def inputs_of(story: Story, name: str) -> dict[str, Payload]:
    story.lease(name)
    return dict(queries.manifest(story.state, TaskName(name)).inputs)


def test_a_blob_is_bound_whole_as_itself_and_in_part_as_a_composed_value() -> None:
    story = started(
        task("a"), task("b", "a", inputs={"whole": output("a"), "part": output("a", "/x/0")})
    )
    finish(story, "a", json_blob("large"))
    inputs = inputs_of(story, "b")
    assert inputs["whole"] == json_blob("large")
    part = ValuePart(value=json_blob("large"), pointer="/x/0")
    assert inputs["part"] == Payload(composed=ComposedValue(parts=[part]))


def test_a_run_input_that_is_a_blob_is_bound_like_an_output() -> None:
    story = Story()
    given = plan.Binding(run_input=plan.RunInputRef(pointer="/n"))
    story.start(graph(task("a", inputs={"n": given})), input=json_blob("input"))
    (part,) = inputs_of(story, "a")["n"].composed.parts
    assert part == ValuePart(value=json_blob("input"), pointer="/n")


def test_a_pointer_into_bytes_fails_the_task() -> None:
    story = started(task("a"), task("b", "a", inputs={"i": output("a", "/x")}))
    finish(story, "a", Payload(blob=ref("image"), content_type="image/png"))
    story.lease("b")
    failure = story.state.tasks[TaskName("b")].failure
    assert failure is not None
    assert failure.reason == "INPUT_UNRESOLVED"


def test_a_list_of_outputs_is_composed_as_soon_as_one_is_a_blob() -> None:
    outputs = plan.Binding(subtree_outputs=plan.SubtreeOutputsRef(task="a", pointer="/k"))
    story = started(
        task("a", may_spawn=True),
        task("join", below("a"), inputs={"all": outputs}),
    )
    finish(story, "a", Payload(json="1"), spawned=(task("x"), task("y")))
    finish(story, "a/x", json_blob("large"))
    finish(story, "a/y", Payload(json='{"k": [7]}'))
    composed = inputs_of(story, "join")["all"].composed
    assert composed.list
    assert list(composed.parts) == [
        ValuePart(value=json_blob("large"), pointer="/k"),
        ValuePart(value=Payload(json="[7]")),
    ]


def test_the_runs_output_may_be_a_blob_or_a_part_of_one() -> None:
    for pointer in ("", "/x"):
        story = Story()
        story.start(graph(task("a"), output=output("a", pointer)))
        (_, ended) = finish(story, "a", json_blob("large"))
        assert isinstance(ended, ev.RunSucceeded)
        found = ended.output.composed.parts[0].value if pointer else ended.output
        assert found == json_blob("large")


def test_a_manifest_has_another_digest_for_another_blob_size_pointer_or_type() -> None:
    def composed(value: Payload, pointer: str) -> Payload:
        return Payload(composed=ComposedValue(parts=[ValuePart(value=value, pointer=pointer)]))

    other_size = Payload(blob=BlobRef(digest=ref("x").digest, size_bytes=1))
    values = [
        json_blob("x"),
        json_blob("y"),
        Payload(blob=ref("x")),
        other_size,
        composed(json_blob("x"), "/a"),
        composed(json_blob("x"), "/b"),
        Payload(composed=ComposedValue(parts=[ValuePart(value=json_blob("x"))], list=True)),
    ]
    assert len({digest_of({"i": value}) for value in values}) == len(values)


def test_an_outcome_without_artifacts_has_the_digest_it_always_had() -> None:
    result = Payload(json="1")
    assert success_digest(result, ()) == digest_of("succeeded", result, ())


def test_artifacts_are_recorded_by_name_and_shown_on_the_task() -> None:
    story = started(task("a"), task("b"))
    log = Artifact(name="out/log.txt", blob=ref("log"), content_type="text/plain")
    image = Artifact(name="image", blob=ref("image"))
    (succeeded,) = finish(story, "a", Payload(json="1"), artifacts=(log, image))
    assert isinstance(succeeded, ev.AttemptSucceeded)
    assert list(succeeded.artifacts) == [image, log]
    assert list(to_task(story.state, A, story.now_ns).artifacts) == [image, log]
    # The same report again, in another order, is answered like the first; another is not.
    assert report(story, "a", Payload(json="1"), artifacts=(image, log)) == ()
    with pytest.raises(ResultConflict):
        report(story, "a", Payload(json="1"), artifacts=(image,))


@pytest.mark.parametrize(
    "artifacts",
    [
        [Artifact(name="", blob=ref("x"))],
        [Artifact(name="/etc/passwd", blob=ref("x"))],
        [Artifact(name="a/../../b", blob=ref("x"))],
        [Artifact(name="a\\b", blob=ref("x"))],
        [Artifact(name="a\nb", blob=ref("x"))],
        [Artifact(name="x" * 201, blob=ref("x"))],
        [Artifact(name="a"), Artifact(name="b")],
        [Artifact(name="a", blob=ref("x"))] * 2,
        [Artifact(name="a", blob=ref("x"), content_type="t" * 256)],
        [Artifact(name=f"a{n}", blob=ref("x")) for n in range(101)],
    ],
)
def test_wrong_artifacts_are_refused(artifacts: list[Artifact]) -> None:
    story = started(task("a"))
    with pytest.raises(InvalidArgument):
        finish(story, "a", Payload(json="1"), artifacts=tuple(artifacts))
    assert story.state.version == 2


def test_details_are_inline() -> None:
    story = started(task("a"))
    story.lease("a")
    failure = Failure(reason="BROKEN", details=json_blob("x"))
    for command in (
        cmd.Fail(now_ns=story.now_ns, task=A, epoch=1, failure=failure),
        cmd.Progress(now_ns=story.now_ns, task=A, epoch=1, details=json_blob("x")),
    ):
        with pytest.raises(InvalidArgument):
            story.do(command)


def test_too_large_a_value_is_told_what_to_do() -> None:
    story = started(task("a"))
    with pytest.raises(InvalidArgument, match="PutBlob"):
        finish(story, "a", Payload(data=b"x" * 65_537))


def _paths_to_blobs(kind: Descriptor, above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for field in kind.fields:
        path = (*above, field.name)
        # Details are inline, a composed value names what other facts name.
        if field.message_type is None or field.name in ("details", "composed"):
            continue
        if field.message_type.full_name == BlobRef.DESCRIPTOR.full_name:
            yield path
        elif field.message_type.full_name.startswith("stretto."):
            yield from _paths_to_blobs(field.message_type, path)


def _with_blob(message: Message, path: tuple[str, ...]) -> None:
    """Set a blob at the path; maps and lists get one entry."""
    name, *rest = path
    inside = getattr(message, name)
    if isinstance(inside, Mapping):
        _with_blob(inside["key"], tuple(rest[1:]))
    elif message.DESCRIPTOR.fields_by_name[name].is_repeated:
        _with_blob(inside.add(), tuple(rest))
    elif rest:
        _with_blob(inside, tuple(rest))
    else:
        inside.CopyFrom(ref("named"))


EVENTS = [getattr(ev, name) for name in sorted(ev.DESCRIPTOR.message_types_by_name)]
PLACES = [(event, path) for event in EVENTS for path in _paths_to_blobs(event.DESCRIPTOR)]


@pytest.mark.parametrize(
    ("event", "path"), PLACES, ids=[f"{kind.__name__}-{'.'.join(path)}" for kind, path in PLACES]
)
def test_no_place_of_a_fact_that_can_name_a_blob_is_passed_over(
    event: type[Message], path: tuple[str, ...]
) -> None:
    fact = event()
    _with_blob(fact, path)
    assert blob_name(ref("named")) in set(in_event(fact))
