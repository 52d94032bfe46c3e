"""What every importer makes: tasks that sleep on a worker's `sleep` executor, and their plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from stretto_sdk.relations import TASK_COUNT_DEFAULT_MAX

NAME_CHARACTERS_MAX = 200


def sleeping_task(
    name: str, *, sleep_s: float, after: Sequence[str], **more: object
) -> dict[str, object]:
    """Return a task in the form of a plan file; fields that are empty are left out."""
    # Nanoseconds, the finest a span of time is written in, without trailing zeros.
    span = f"{sleep_s:.9f}".rstrip("0").rstrip(".")
    form = {
        "name": name,
        "executor": "sleep",
        "arguments": {"duration": f"{span}s"},
        "after": list(after),
        **more,
    }
    return _given(form)


def plan_form(
    name: str, tasks: Sequence[Mapping[str, object]], **more: object
) -> dict[str, object]:
    """Return a plan in the form of a plan file; one of very many tasks says that it is meant so."""
    task_count_max = len(tasks) if len(tasks) > TASK_COUNT_DEFAULT_MAX else None
    return _given(
        {
            "name": name[:NAME_CHARACTERS_MAX],
            **more,
            "task_count_max": task_count_max,
            "tasks": list(tasks),
        }
    )


def _given(form: Mapping[str, object]) -> dict[str, object]:
    return {key: value for key, value in form.items() if value not in (None, "", [], {})}
