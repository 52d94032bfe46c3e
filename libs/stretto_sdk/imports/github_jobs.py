"""A job graph of GitHub Actions as a plan: one task a job, one a combination where it has a matrix.

Reads `*.jobs.json`: {"name", "jobs": {ID: {needs, if, matrix, fail_fast, timeout_minutes,
continue_on_error, uses_reusable, steps}}}; steps are a number, for what they do is left out. Pure.

| there | in the plan |
| --- | --- |
| needs | after: every task of those jobs |
| if: always() or !cancelled() | join all_done |
| if: any other condition | taken as met, with a remark: only GitHub can evaluate it |
| matrix | a task for each combination; one task where an expression makes it |
| fail_fast (by default, with a matrix) | failure_policy fail_fast, which is the whole run's |
| timeout_minutes | timeouts.attempt |
| continue_on_error | on_failure ignore |
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from stretto_sdk.fields import Fields, Mistakes, name_of
from stretto_sdk.imports import Imported
from stretto_sdk.imports.matrix import Combination, combinations, is_dynamic
from stretto_sdk.imports.sleeping import plan_form, sleeping_task
from stretto_sdk.imports.task_names import task_names
from stretto_sdk.task_order import cycle_beside, ordered

STEPS_MAX = 10_000
STEP_S_MAX = 86_400.0
MINUTES_MAX = 30 * 24 * 60
_WHATEVER_CAME_BEFORE = re.compile(r"always\s*\(\s*\)|!\s*cancelled\s*\(\s*\)")
_AFTER_A_FAILURE = re.compile(r"(?:failure|(?<!!)cancelled)\s*\(\s*\)")


@dataclass(slots=True, kw_only=True)
class _Job:
    """One job as read; `at` is its path in the document."""

    id: str
    at: str
    needs: list[str]
    tasks: list[Combination]
    step_count: int
    fields: dict[str, object] = field(default_factory=dict)


@dataclass(slots=True)
class _Workflow:
    """What was read, and what only GitHub knows, by the sentence that says so."""

    mistakes: Mistakes
    jobs: dict[str, _Job] = field(default_factory=dict)
    told: dict[str, list[str]] = field(default_factory=dict)
    fails_fast: list[str] = field(default_factory=list)

    def tell(self, sentence: str, job: str) -> None:
        """Remember a job of which something cannot be carried over."""
        self.told.setdefault(sentence, []).append(job)


def plan_of_github_jobs(
    document: object, *, step_s: float = 0.0, source: str = "the workflow"
) -> Imported:
    """Return the plan of a parsed job graph.

    step_s: how long each step of a job takes, seconds, >= 0; 0 = no task sleeps.
    source: what the document is, as a person calls it; it opens the message.
    Raises InvalidArgument with every mistake, each with its path.
    """
    mistakes = Mistakes()
    if not (math.isfinite(step_s) and 0 <= step_s <= STEP_S_MAX):
        mistakes.add("step_seconds", f"must be a number from 0 to {STEP_S_MAX:.0f}")
        mistakes.raise_if_any(source)
    workflow = _Workflow(mistakes)
    top = Fields(document, "", mistakes)
    if not top.value("jobs"):
        top.wrong("jobs", "is required: an object of at least one job")
    for at, name, value in top.members("jobs"):
        job = _read_job(workflow, name, at, value)
        if job is not None:
            workflow.jobs[name] = job
    _check_needs(workflow)
    mistakes.raise_if_any(source)
    return _imported(workflow, top.text("name"), step_s)


def _read_job(workflow: _Workflow, name: str, at: str, value: object) -> _Job | None:
    fields = Fields(value, at, workflow.mistakes)
    if not isinstance(value, Mapping):
        return None
    one = isinstance(fields.value("needs"), str)
    job = _Job(
        id=name,
        at=at,
        needs=[fields.text("needs")] if one else fields.texts("needs"),
        tasks=_read_matrix(workflow, name, fields),
        step_count=fields.integer("steps", low=0, high=STEPS_MAX),
        fields={
            "join": _read_condition(workflow, name, fields),
            "timeouts": _read_timeout(workflow, name, fields),
            "on_failure": _read_tolerance(workflow, name, fields),
        },
    )
    if fields.has("uses_reusable"):
        workflow.tell("call another workflow, which is one task here", name)
    return job


def _read_matrix(workflow: _Workflow, name: str, fields: Fields) -> list[Combination]:
    fails_fast = fields.value("fail_fast")
    if isinstance(fails_fast, str):
        workflow.tell("decide by an expression whether to fail fast: taken as false", name)
        fails_fast = False
    else:
        fails_fast = fields.boolean("fail_fast") if fields.has("fail_fast") else True
    if not fields.has("matrix"):
        return [{}]
    matrix = fields.value("matrix")
    if is_dynamic(matrix):
        workflow.tell("have a matrix that an expression makes: one task each", name)
        return [{}]
    found = combinations(matrix, fields.at("matrix"), workflow.mistakes)
    if fails_fast and len(found) > 1:
        workflow.fails_fast.append(name)
    return found


def _read_condition(workflow: _Workflow, name: str, fields: Fields) -> str | None:
    condition = fields.value("if")
    if condition is None:
        return None
    if not isinstance(condition, str | bool):
        fields.wrong("if", f"must be a string, not {name_of(condition)}")
        return None
    text = str(condition)
    if _WHATEVER_CAME_BEFORE.search(text):
        return "all_done"
    if _AFTER_A_FAILURE.search(text):
        fields.wrong("if", "runs only after a failure: no join rule of a plan says that")
        return None
    workflow.tell("have a condition that only GitHub can evaluate: taken as met", name)
    return None


def _read_timeout(workflow: _Workflow, name: str, fields: Fields) -> dict[str, str] | None:
    if isinstance(fields.value("timeout_minutes"), str):
        workflow.tell("have a timeout that an expression makes: none here", name)
        return None
    minutes = fields.number("timeout_minutes")
    if minutes is None:
        return None
    if not 0 < minutes <= MINUTES_MAX:
        fields.wrong("timeout_minutes", f"must be above 0 and at most {MINUTES_MAX}")
        return None
    return {"attempt": f"{minutes:.9f}".rstrip("0").rstrip(".") + "m"}


def _read_tolerance(workflow: _Workflow, name: str, fields: Fields) -> str | None:
    if isinstance(fields.value("continue_on_error"), str):
        workflow.tell("decide by an expression whether to go on after an error: they do not", name)
        return None
    return "ignore" if fields.boolean("continue_on_error") else None


def _check_needs(workflow: _Workflow) -> None:
    jobs, mistakes = workflow.jobs, workflow.mistakes
    for job in jobs.values():
        seen: set[str] = set()
        for index, needed in enumerate(job.needs):
            at = f"{job.at}.needs[{index}]"
            if needed == job.id:
                mistakes.add(at, "a job cannot need itself")
            elif needed in seen:
                mistakes.add(at, f"{needed!r} is there twice")
            elif needed not in jobs:
                mistakes.add(at, f"no job is named {needed!r}")
            seen.add(needed)
    names = list(jobs)
    numbers = {name: number for number, name in enumerate(names)}
    waits_for = [
        {numbers[each] for each in job.needs if each in numbers and each != job.id}
        for job in jobs.values()
    ]
    if cycle := cycle_beside(ordered(waits_for), waits_for):
        mistakes.add("jobs", f"needs form a cycle: {' -> '.join(names[each] for each in cycle)}")


def _imported(workflow: _Workflow, name: str, step_s: float) -> Imported:
    jobs = list(workflow.jobs.values())
    named = iter(task_names(_label(job.id, each) for job in jobs for each in job.tasks))
    names = {job.id: [next(named) for _ in job.tasks] for job in jobs}
    tasks = [
        sleeping_task(
            name_of_task,
            sleep_s=job.step_count * step_s,
            after=[above for needed in job.needs for above in names[needed]],
            **job.fields,
        )
        for job in jobs
        for name_of_task in names[job.id]
    ]
    policy = "fail_fast" if workflow.fails_fast else None
    if workflow.fails_fast:
        workflow.told["fail fast, which stops the whole run here"] = workflow.fails_fast
    remarks = [f"{', '.join(told)}: {sentence}" for sentence, told in workflow.told.items()]
    return Imported(plan_form(name, tasks, failure_policy=policy), remarks)


def _label(job: str, combination: Combination) -> str:
    return "-".join([job, *map(_word, combination.values())])


def _word(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
