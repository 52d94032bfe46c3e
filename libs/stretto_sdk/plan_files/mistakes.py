"""What is wrong in a plan file: sentences with file, line and column, and their refusal."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from stretto_core.errors import FieldViolation, InvalidArgument, Refusal, Unimplemented

from stretto_sdk.fields import SHOWN_MISTAKES_MAX, WHOLE
from stretto_sdk.form_paths import form_path


@dataclass(frozen=True, slots=True, order=True)
class PlanMistake:
    """One mistake. line, column: from 1; 0 where no place is meant. field: "" for none."""

    file: str
    line: int
    column: int
    field: str
    description: str

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}:{self.column}: " if self.line else ""
        what = f"{self.field}: " if self.field and self.field != WHOLE else ""
        return f"{where}{what}{self.description}"


class PlanRefused(InvalidArgument):
    """A plan file is not a plan. mistakes: every one that was found, sorted by place."""

    def __init__(self, source: str, mistakes: Iterable[PlanMistake]) -> None:
        self.mistakes = tuple(mistakes)
        count = len(self.mistakes)
        lines = [str(each) for each in self.mistakes[:SHOWN_MISTAKES_MAX]]
        if count > SHOWN_MISTAKES_MAX:
            lines.append(f"... and {count - SHOWN_MISTAKES_MAX} more")
        noun = "mistake" if count == 1 else "mistakes"
        super().__init__(
            "\n  ".join([f"{source} has {count} {noun}:", *lines]),
            violations=[FieldViolation(each.field, str(each)) for each in self.mistakes],
        )


Located = Callable[[str, str], PlanMistake]
"""Returns the mistake of (field path in the form, description) with its place."""


def located_refusal(refusal: Refusal, source: str, located: Located) -> Refusal:
    """Return what the kernel refused about a plan file's run, by the file's own places."""
    match refusal:
        case PlanRefused():
            return refusal
        case InvalidArgument(violations=violations) if any(map(_is_of_plan, violations)):
            mistakes = [
                located(form_path(each.field), each.description)
                if _is_of_plan(each)
                else PlanMistake("", 0, 0, form_path(each.field), each.description)
                for each in violations
            ]
            return PlanRefused(source, sorted(mistakes))
        case Unimplemented(metadata={"field": field}) if field.startswith(_OF_PLAN):
            told = located(form_path(field), refusal.message)
            return Unimplemented(f"{told.file}:{told.line}:{told.column}: {told.description}")
    return refusal


_OF_PLAN = ("task_graph", "tasks[", "tasks", "output.", "task_count_max")


def _is_of_plan(violation: FieldViolation) -> bool:
    return violation.field.startswith(_OF_PLAN)
