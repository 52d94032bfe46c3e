"""What a drawing of a plan or a run shows: boxes, what is spawned below which, and arrows.

Pure. A large graph is drawn calmly: what was spawned becomes one box per spawner, tasks alike
become one box, and what is still beyond the bound is left out with a note.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum

from stretto.run.v1 import plan_pb2 as pb

from stretto_sdk.runs import Task

BOXES_MAX = 150
"""More than that nobody reads, and Mermaid draws 500 arrows at most."""
ARROWS_MAX = 400


class Arrow(Enum):
    """How one box depends on another."""

    TASK = "task"
    SUBTREE = "subtree"


@dataclass(frozen=True, slots=True)
class Box:
    """A task, or several in one box. state: "" in a plan; spawner: the name of the box above."""

    name: str
    detail: str = ""
    state: str = ""
    spawner: str = ""
    clean_up: bool = False
    many: bool = False


@dataclass(frozen=True, slots=True)
class Drawing:
    """Boxes in order, and the arrows between them by (from, to)."""

    title: str
    boxes: Sequence[Box]
    arrows: Mapping[tuple[str, str], Arrow]
    notes: Sequence[str] = field(default=())


def drawing_of_plan(title: str, tasks: Iterable[pb.TaskSpec]) -> Drawing:
    """Return the drawing of a plan's tasks."""
    boxes: dict[str, Box] = {}
    arrows: dict[tuple[str, str], Arrow] = {}
    for task in tasks:
        boxes[task.name] = Box(task.name, task.executor, clean_up=task.clean_up)
        for edge in task.dependencies:
            subtree = edge.scope == pb.DEPENDENCY_SCOPE_SUBTREE
            arrows[edge.task, task.name] = Arrow.SUBTREE if subtree else Arrow.TASK
    return _calm(Drawing(title, list(boxes.values()), arrows))


def drawing_of_run(title: str, tasks: Iterable[Task]) -> Drawing:
    """Return the drawing of a run's tasks, each with its state."""
    boxes: dict[str, Box] = {}
    arrows: dict[tuple[str, str], Arrow] = {}
    for task in tasks:
        attempt = f", attempt {task.attempt}" if task.attempt > 1 else ""
        boxes[task.name] = Box(
            task.name,
            f"{task.executor}{attempt}",
            state=task.state.value,
            spawner=task.spawner,
            clean_up=task.clean_up,
        )
        for name in task.dependencies:
            subtree = name in task.subtree_dependencies
            arrows[name, task.name] = Arrow.SUBTREE if subtree else Arrow.TASK
    return _calm(Drawing(title, list(boxes.values()), arrows))


def _calm(drawing: Drawing) -> Drawing:
    for step in (_spawned_in_one, _alike_in_one, _the_first):
        if len(drawing.boxes) > BOXES_MAX or len(drawing.arrows) > ARROWS_MAX:
            drawing = step(drawing)
    return drawing


def _spawned_in_one(drawing: Drawing) -> Drawing:
    """Put everything below a task of the plan into one box."""
    spawners = {box.name: box.spawner for box in drawing.boxes}

    def top(name: str) -> str:
        while spawners.get(name):
            name = spawners[name]
        return name

    return _merged(
        drawing,
        lambda box: f"below {top(box.name)}" if box.spawner else None,
        lambda boxes: replace(
            _many(boxes), name=f"{len(boxes)} spawned", spawner=top(boxes[0].name)
        ),
    )


def _alike_in_one(drawing: Drawing) -> Drawing:
    """Put tasks with the same state, before and after the same others, into one box."""
    before: dict[str, set[str]] = {}
    after: dict[str, set[str]] = {}
    for above, below in drawing.arrows:
        before.setdefault(below, set()).add(above)
        after.setdefault(above, set()).add(below)

    def place(box: Box) -> object:
        return (
            box.state,
            box.spawner,
            box.clean_up,
            box.many,
            frozenset(before.get(box.name, ())),
            frozenset(after.get(box.name, ())),
        )

    return _merged(drawing, place, _many)


def _the_first(drawing: Drawing) -> Drawing:
    """Leave out what is beyond the bounds, and say how much that is."""
    boxes = drawing.boxes[:BOXES_MAX]
    names = {box.name for box in boxes}
    arrows = {pair: kind for pair, kind in drawing.arrows.items() if names.issuperset(pair)}
    shown = dict(list(arrows.items())[:ARROWS_MAX])
    left_boxes, left_arrows = len(drawing.boxes) - len(boxes), len(drawing.arrows) - len(shown)
    note = f"left out: {left_boxes} boxes, {left_arrows} arrows"
    return replace(drawing, boxes=boxes, arrows=shown, notes=[*drawing.notes, note])


def _merged(
    drawing: Drawing,
    group_of: Callable[[Box], object],
    merge: Callable[[list[Box]], Box],
) -> Drawing:
    """Return the drawing with each group of two or more boxes as one. None: in no group."""
    groups: dict[object, list[Box]] = {}
    for box in drawing.boxes:
        groups.setdefault(group_of(box) or box, []).append(box)
    names: dict[str, str] = {}
    boxes: list[Box] = []
    for group in groups.values():
        box = merge(group) if len(group) > 1 else group[0]
        if len(group) > 1:
            box = replace(box, name=f"{box.name} ({group[0].name} ... {group[-1].name})")
        boxes.append(box)
        names.update((each.name, box.name) for each in group)
    arrows: dict[tuple[str, str], Arrow] = {}
    for (above, below), kind in drawing.arrows.items():
        pair = names.get(above, above), names.get(below, below)
        if pair[0] != pair[1] and arrows.get(pair) is not Arrow.SUBTREE:
            arrows[pair] = kind
    merged = [replace(box, spawner=names.get(box.spawner, box.spawner)) for box in boxes]
    return replace(drawing, boxes=merged, arrows=arrows)


def _many(boxes: list[Box]) -> Box:
    states = Counter(box.state for box in boxes if box.state)
    detail = ", ".join(f"{count} {state}" for state, count in states.most_common())
    alone = next(iter(states), "") if len(states) == 1 else _worst(states)
    return replace(
        boxes[0], name=f"{len(boxes)} tasks", detail=detail or boxes[0].detail, state=alone,
        many=True,
    )  # fmt: skip


_WORST_FIRST = ("FAILED", "RUNNING", "WAITING", "READY", "VERIFYING", "PENDING")


def _worst(states: Counter[str]) -> str:
    return next((state for state in _WORST_FIRST if states[state]), next(iter(states), ""))
