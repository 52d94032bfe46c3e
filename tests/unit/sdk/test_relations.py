"""What is told of a plan file before it is sent is what the kernel would tell, on random graphs."""

from __future__ import annotations

import random

import pytest
from stretto.run.v1 import plan_pb2 as pb
from stretto_core.errors import InvalidArgument
from stretto_sdk.fields import Mistakes
from stretto_sdk.form_paths import form_path
from stretto_sdk.relations import check_relations

from tests.model.runs import Story

NAMES = [f"t{n}" for n in range(9)]


def drawn(draws: random.Random) -> pb.TaskGraph:
    """A small graph, most of it right, some names unknown, doubled or in a circle."""

    def name(index: int) -> str:
        if draws.random() < 0.06:
            return draws.choice([*NAMES, "absent"])
        return NAMES[draws.randrange(index)] if index else "absent"

    def binding(index: int) -> pb.Binding:
        if draws.random() < 0.3:
            return pb.Binding(subtree_outputs=pb.SubtreeOutputsRef(task=name(index)))
        return pb.Binding(task_output=pb.TaskOutputRef(task=name(index)))

    graph = pb.TaskGraph()
    for index in range(draws.randrange(1, len(NAMES))):
        task = graph.tasks.add(
            name=NAMES[index] if draws.random() > 0.03 else NAMES[0],
            executor="sleep",
            clean_up=draws.random() < 0.1,
        )
        for _ in range(draws.choice([0, 1, 1, 2]) if index else 0):
            scope = draws.choice([pb.DEPENDENCY_SCOPE_TASK, pb.DEPENDENCY_SCOPE_SUBTREE])
            task.dependencies.add(task=name(index), scope=scope)
        for key in ("x", "y")[: draws.choice([0, 0, 1, 2])]:
            task.inputs[key].CopyFrom(binding(index))
    if draws.random() < 0.5:
        graph.output.CopyFrom(binding(len(graph.tasks)))
    return graph


def by_the_kernel(graph: pb.TaskGraph) -> dict[str, str]:
    try:
        Story().start(graph)
    except InvalidArgument as refused:
        return {each.field: each.description for each in refused.violations}
    return {}


def by_the_file(graph: pb.TaskGraph) -> dict[str, str]:
    mistakes = Mistakes()
    check_relations(graph, mistakes)
    return {path: description for path, description, _ in mistakes.found()}


@pytest.mark.parametrize("seed", range(20))
def test_the_kernel_tells_the_same_of_the_same_graphs(seed: int) -> None:
    draws = random.Random(seed)
    for _ in range(100):
        graph = drawn(draws)
        theirs, ours = by_the_kernel(graph), by_the_file(graph)
        doubled = {form_path(path) for path in theirs if path.endswith(".name")}
        if doubled:
            # Which of the two a name then means is anybody's guess.
            assert doubled == {path for path in ours if path.endswith(".name")}
            continue
        circle = [path for path, why in theirs.items() if "form a cycle" in why]
        if circle:
            assert any("form a cycle" in why for why in ours.values()), graph
            continue
        # The kernel names an input as a whole, a file the part of it that is wrong.
        wanted = {form_path(path) for path in theirs}
        found = {path.removesuffix(".task") if ".inputs." in path else path for path in ours}
        assert found == wanted, (theirs, ours)
