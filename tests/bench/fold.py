"""Cost of the run decider per event, in runs of different sizes: it must not grow with the run.

Prints one JSON line per figure, in CPU time. Run: `python -m tests.bench.fold [--tasks N ...]`. No
log: decide and evolve of a growing plan, then a lease and a completion of every task; then the fold
of that log into a fresh state. Shapes: `fan` (independent tasks into one join) and `chain`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from time import process_time_ns

from stretto.run.v1 import plan_pb2 as plan
from stretto_kernel.domain.run import queries

from tests.model.runs import Story, fold, graph, task

SLICE_TASKS = 1_000
JOIN_EVERY = 1_000


def specs(shape: str, task_count: int) -> Iterable[plan.TaskSpec]:
    """Return the tasks of a run: a chain, or fans of a thousand into a join."""
    if shape == "chain":
        yield task("t0")
        for index in range(1, task_count):
            yield task(f"t{index}", f"t{index - 1}")
        return
    for index in range(task_count):
        if index % JOIN_EVERY == JOIN_EVERY - 1:
            yield task(f"t{index}", *(f"t{at}" for at in range(index - JOIN_EVERY + 1, index)))
        else:
            yield task(f"t{index}")


def measure(shape: str, task_count: int) -> None:
    """Plan, run and fold one run; print what an event cost in each part."""
    story = Story()
    story.start(graph(growing=True, task_count_max=1_000_000))
    tasks = list(specs(shape, task_count))
    longest_ns = 0
    begin_ns = process_time_ns()
    for at in range(0, task_count, SLICE_TASKS):
        slice_begin_ns = process_time_ns()
        story.add(*tasks[at : at + SLICE_TASKS], sealed=at + SLICE_TASKS >= task_count)
        longest_ns = max(longest_ns, process_time_ns() - slice_begin_ns)
    planned_ns = process_time_ns() - begin_ns
    begin_ns = process_time_ns()
    for spec in tasks:
        story.lease(spec.name)
        queries.offer(story.state, story.state.take_touched().tasks[0])
        story.complete(spec.name)
        story.state.take_touched()
    worked_ns = process_time_ns() - begin_ns
    assert story.state.end is not None
    begin_ns = process_time_ns()
    fold(story.log)
    folded_ns = process_time_ns() - begin_ns
    work_events = 2 * task_count
    print(  # noqa: T201 - the figures are the purpose
        json.dumps(
            {
                "bench": "decider",
                "shape": shape,
                "tasks": task_count,
                "plan_us_per_task": round(planned_ns / task_count / 1_000, 2),
                "slice_of_1000_ms_max": round(longest_ns / 1_000_000, 2),
                "decide_evolve_us_per_event": round(worked_ns / work_events / 1_000, 2),
                "fold_events_per_s": round(len(story.log) / folded_ns * 1_000_000_000),
            }
        )
    )


def main() -> None:
    """Measure each shape at each size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, nargs="+", default=[1_000, 100_000])
    options = parser.parse_args()
    for shape in ("fan", "chain"):
        for task_count in options.tasks:
            measure(shape, task_count)


if __name__ == "__main__":
    main()
