"""A plan of several files: what is included, under which names, and which file a task came from.

Files are read below one directory only, a bounded number of them, each by the path the includer
gives, relative to itself. Names inside an included file mean its own tasks first, and tasks of
the whole plan else; its prefix stands before its own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from stretto_sdk.fields import WHOLE, Mistakes, name_of
from stretto_sdk.plan_files.mistakes import PlanMistake
from stretto_sdk.plan_files.parameters import (
    Unfolding,
    read_parameters,
    values_of,
    with_parameters,
)
from stretto_sdk.plan_files.text import PlanText, Unreadable
from stretto_sdk.plan_form import run_members
from stretto_sdk.plan_shapes import FRAGMENT_MEMBERS, INCLUDES, Include
from stretto_sdk.shapes import At

INCLUDE_DEPTH_MAX = 8
INCLUDED_FILES_MAX = 100
"""Of one plan, counted as often as each is included."""

Load = Callable[[Path], PlanText]
"""Reads a plan file's text. Raises Unreadable, OSError."""


@dataclass(slots=True)
class Document:
    """One file of a plan, and what is wrong in it by its own field paths.

    source: what it is, as a person calls it; path: None when it is no file.
    """

    source: str
    path: Path | None
    text: PlanText
    mistakes: Mistakes = field(default_factory=Mistakes)

    def told(self, path: str, description: str, *, of_key: bool = False) -> PlanMistake:
        """Return a mistake of a field with its place."""
        place = self.text.spot().find(path, of_key=of_key)
        return PlanMistake(self.source, place.line, place.column, path, description)


@dataclass(frozen=True, slots=True)
class Origin:
    """The task of a document."""

    value: object
    document: Document
    index: int


@dataclass(slots=True)
class Assembly:
    """The plan that a document and all it includes make up.

    root: the directory that no file may lie outside of.
    """

    load: Load
    root: Path
    directory: Path
    tasks: list[Origin] = field(default_factory=list)
    documents: dict[Path, Document | None] = field(default_factory=dict)
    unplaced: list[PlanMistake] = field(default_factory=list)
    included: int = 0
    unfolding: Unfolding = field(default_factory=Unfolding)

    def assemble(self, top: Document, given: Mapping[str, object]) -> object:
        """Return the form of the whole plan; what is wrong with files is noted on the way."""
        value = top.text.value
        if not isinstance(value, Mapping):
            return value

        def wrong(name: str, why: str) -> None:
            hint = "" if value.get("parameters") else " (a run's input is given with --input)"
            self.unplaced.append(PlanMistake("", 0, 0, f"--set {name}", f"{why}{hint}"))

        body, self.tasks = self._expanded(top, value, given, wrong, (top,))
        own = body.get("tasks")
        if isinstance(own, list) or (own is None and self.tasks):
            body["tasks"] = [each.value for each in self.tasks]
        return body

    def origin(self, top: Document, path: str) -> tuple[Document, str]:
        """Return the document that a field of the whole plan came from, and its path there."""
        found = re.match(r"tasks\[([0-9]+)\]", path)
        if found is None or int(found[1]) >= len(self.tasks):
            return top, path
        task = self.tasks[int(found[1])]
        return task.document, f"tasks[{task.index}]{path[found.end() :]}"

    def _expanded(
        self,
        document: Document,
        value: Mapping[str, object],
        given: Mapping[str, object],
        wrong: Callable[[str, str], None],
        chain: tuple[Document, ...],
    ) -> tuple[dict[str, object], list[Origin]]:
        """Return a document with its parameters put in, and its tasks with the included ones."""
        declared = read_parameters(value.get("parameters"), document.mistakes)
        values = values_of(declared, given, wrong)
        body: dict[str, object] = run_members(value)
        if document.text.refers:
            body = with_parameters(body, values, document.mistakes.add, self.unfolding)
        own = body.get("tasks")
        tasks = [
            Origin(each, document, index)
            for index, each in enumerate(own if isinstance(own, list) else [])
        ]
        include = {"include": value.get("include")}
        written = with_parameters(include, values, document.mistakes.add, self.unfolding)
        if written["include"] is not None:
            at = At(document.mistakes).within("include")
            for index, include in enumerate(INCLUDES.read(written["include"], at) or []):
                if include.file:
                    tasks += self._included(document, index, include, chain)
        return body, tasks

    def _included(
        self, document: Document, index: int, include: Include, chain: tuple[Document, ...]
    ) -> list[Origin]:
        at = f"include[{index}]"

        def wrong(name: str, why: str) -> None:
            document.mistakes.add(f"{at}.with.{name}" if name else f"{at}.file", why)

        found = self._found(document, include.file, chain, lambda why: wrong("", why))
        if found is None:
            return []
        value = found.text.value
        if not isinstance(value, Mapping):
            found.mistakes.add("", f"must be an object, not {name_of(value)}")
            return []
        for key in value:
            if key not in FRAGMENT_MEMBERS:
                known = ", ".join(FRAGMENT_MEMBERS)
                why = f"belongs to a run, and this file is included: it may hold {known}"
                found.mistakes.add(str(key), why, of_key=True)
        if not isinstance(value.get("tasks", []), list):
            found.mistakes.add("tasks", f"must be a list, not {name_of(value['tasks'])}")
        _, tasks = self._expanded(found, value, include.given, wrong, (*chain, found))
        return _prefixed(tasks, include.prefix)

    def _found(
        self,
        document: Document,
        file: str,
        chain: tuple[Document, ...],
        wrong: Callable[[str], None],
    ) -> Document | None:
        """Return the document of an included file, None when it cannot be; why not is told."""
        directory = document.path.parent if document.path else self.directory
        path = (directory / file).resolve()
        if not path.is_relative_to(self.root):
            wrong(f"{file!r} lies outside of {self.root}, where this plan's files are: move it, or "
                  "name a directory above both with --root")  # fmt: skip
            return None
        above = [each.path for each in chain]
        if path in above:
            names = [each.source for each in chain[above.index(path) :]]
            wrong(f"the files include each other: {' -> '.join([*names, names[0]])}")
            return None
        self.included += 1
        if len(chain) > INCLUDE_DEPTH_MAX or self.included > INCLUDED_FILES_MAX:
            bound = (
                f"deeper than {INCLUDE_DEPTH_MAX}"
                if len(chain) > INCLUDE_DEPTH_MAX
                else f"more than {INCLUDED_FILES_MAX} files"
            )
            wrong(f"includes go {bound}: put some into one file")
            return None
        if path not in self.documents:
            self.documents[path] = self._loaded(path, wrong)
        return self.documents[path]

    def _loaded(self, path: Path, wrong: Callable[[str], None]) -> Document | None:
        source = _shown(path, self.directory)
        try:
            return Document(source, path, self.load(path))
        except OSError as error:
            wrong(f"{source}: {error.strerror or error}")
        except Unreadable as unreadable:
            self.unplaced += mistakes_of_text(source, unreadable)
        return None


def mistakes_of_text(source: str, text: PlanText | Unreadable) -> list[PlanMistake]:
    """Return what is wrong with a text itself."""
    return [
        PlanMistake(source, each.place.line, each.place.column, "", each.description)
        for each in text.mistakes
    ]


def mistakes_of_document(document: Document) -> list[PlanMistake]:
    """Return what is wrong in a document, but not in its tasks."""
    found = mistakes_of_text(document.source, document.text)
    for path, description, of_key in document.mistakes.found():
        plain = "" if path == WHOLE else path.removeprefix(".")
        found.append(document.told(plain, description, of_key=of_key))
    return found


def _shown(path: Path, directory: Path) -> str:
    """Return a path as a person who is in `directory` would write it."""
    return str(path.relative_to(directory)) if path.is_relative_to(directory) else str(path)


def _prefixed(tasks: Sequence[Origin], prefix: str) -> list[Origin]:
    """Return the tasks of an included file with its prefix before every name of its own."""
    if not prefix:
        return list(tasks)
    own = {task.value.get("name") for task in tasks if isinstance(task.value, Mapping)}

    def renamed(name: object) -> object:
        return f"{prefix}{name}" if isinstance(name, str) and name in own else name

    def renamed_in(value: object) -> object:
        """Return a dependency or a binding with the name it refers to."""
        if isinstance(value, Mapping) and value.get("from") != "literal" and "task" in value:
            return {**value, "task": renamed(value["task"])}
        return value

    found = []
    for task in tasks:
        value = task.value
        if isinstance(value, Mapping):
            value = dict(value)
            value["name"] = renamed(value.get("name"))
            if isinstance(after := value.get("after"), list):
                value["after"] = [
                    renamed(each) if isinstance(each, str) else renamed_in(each) for each in after
                ]
            if isinstance(inputs := value.get("inputs"), Mapping):
                value["inputs"] = {key: renamed_in(each) for key, each in inputs.items()}
        found.append(Origin(value, task.document, task.index))
    return found
