"""Plan files, from the disk to a checked run, or to every mistake in them with its place."""

from __future__ import annotations

import errno
import stat
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from stretto_core.errors import InvalidArgument

from stretto_sdk.arguments.builtin import check_arguments
from stretto_sdk.fields import WHOLE, Mistakes
from stretto_sdk.plan_files.assembly import (
    Assembly,
    Document,
    mistakes_of_document,
    mistakes_of_text,
)
from stretto_sdk.plan_files.json_text import read_json
from stretto_sdk.plan_files.mistakes import PlanMistake, PlanRefused
from stretto_sdk.plan_files.places import Place
from stretto_sdk.plan_files.text import (
    PLAN_BYTES_MAX,
    PlanText,
    TextMistake,
    Unreadable,
    decoded,
    too_large,
)
from stretto_sdk.plan_files.yaml_text import read_yaml
from stretto_sdk.plan_form import RunForm, read_run
from stretto_sdk.relations import check_relations


def read_plan_file(
    path: Path, *, parameters: Mapping[str, object] | None = None, root: Path | None = None
) -> RunForm:
    """Return the run that a plan file describes, in YAML or JSON.

    >>> form = read_plan_file(Path("plan.yaml"), parameters={"who": "world"})
    >>> run = await client.start(form)

    parameters: values of those it declares, over their defaults; text is read by their type.
    root: what it includes must lie in there; by default, its own directory.
    Raises PlanRefused with every mistake, InvalidArgument when the file cannot be read.
    """
    try:
        raw = _bytes_of(path)
    except OSError as error:
        raise InvalidArgument(f"{path}: {error.strerror or error}") from None
    except Unreadable as unreadable:
        raise PlanRefused(str(path), mistakes_of_text(str(path), unreadable)) from None
    directory = path.absolute().parent
    return _read(
        raw,
        str(path),
        path.resolve(),
        Assembly(_load, (root or directory).resolve(), directory.resolve()),
        parameters or {},
    )


def read_plan_text(
    text: bytes | str,
    *,
    source: str,
    parameters: Mapping[str, object] | None = None,
    directory: Path | None = None,
) -> RunForm:
    """Return the run that the text of a plan file describes; what begins with { is JSON.

    source: what the text is, as a person calls it ("standard input").
    directory: where it includes files from; by default, where this program runs.
    Raises PlanRefused with every mistake.
    """
    raw = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    within = (directory or Path.cwd()).resolve()
    return _read(raw, source, None, Assembly(_load, within, within), parameters or {})


def _read(
    raw: bytes, source: str, path: Path | None, assembly: Assembly, given: Mapping[str, object]
) -> RunForm:
    try:
        top = Document(source, path, _text_of(raw, path))
    except Unreadable as unreadable:
        raise PlanRefused(source, mistakes_of_text(source, unreadable)) from None
    value = assembly.assemble(top, given)
    mistakes = Mistakes()
    form = read_run(value, mistakes)
    check_relations(form.graph, mistakes)
    if not assembly.unplaced:  # Else a parameter is missing, and what stands on it tells nothing.
        check_arguments(form.graph, mistakes)
    located = partial(_located, assembly, top)
    documents = [top, *(each for each in assembly.documents.values() if each)]
    found = list(assembly.unplaced)
    for document in documents:
        found += mistakes_of_document(document)
    for field, description, of_key in mistakes.found():
        found.append(located("" if field == WHOLE else field, description, of_key=of_key))
    if found:
        order = {document.source: number for number, document in enumerate(documents, 1)}
        found = _each_once(found)
        found.sort(key=lambda each: (order.get(each.file, 0), each.line, each.column))
        raise PlanRefused(source, found)
    return replace(form, source=source, located=located)


def _each_once(mistakes: list[PlanMistake]) -> list[PlanMistake]:
    """Return the mistakes but for those that an earlier one of the same field explains.

    Of those, what a text has wrong at the field's place is one.
    """
    texts = {(each.file, each.line, each.column) for each in mistakes if not each.field}
    first: dict[tuple[str, str, object], PlanMistake] = {}
    for each in mistakes:
        own = each.description if each.field in ("", WHOLE) else None
        if not each.field or (each.file, each.line, each.column) not in texts:
            first.setdefault((each.file, each.field, own), each)
    return list(first.values())


def _located(
    assembly: Assembly, top: Document, path: str, description: str, *, of_key: bool = False
) -> PlanMistake:
    document, own_path = assembly.origin(top, path)
    return document.told(own_path, description, of_key=of_key)


def _load(path: Path) -> PlanText:
    return _text_of(_bytes_of(path), path)


def _bytes_of(path: Path) -> bytes:
    """Return what a file holds. Raises OSError; Unreadable, unread, when it is too large."""
    status = path.stat()
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, "Is a directory, not a plan file", str(path))
    size_bytes = status.st_size
    if size_bytes <= PLAN_BYTES_MAX:
        with path.open("rb") as file:
            raw = file.read(PLAN_BYTES_MAX + 1)
        size_bytes = len(raw)
    if size_bytes > PLAN_BYTES_MAX:
        raise Unreadable(TextMistake(Place(1, 1), too_large(size_bytes)))
    return raw


def _text_of(raw: bytes, path: Path | None) -> PlanText:
    text = decoded(raw)
    return _reader(text, path)(text)


def _reader(text: str, path: Path | None) -> Callable[[str], PlanText]:
    match path.suffix.lower() if path else "":
        case ".json":
            return read_json
        case ".yaml" | ".yml":
            return read_yaml
    return read_json if text.lstrip()[:1] == "{" else read_yaml
