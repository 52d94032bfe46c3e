"""YAML texts of plans, by the core schema of YAML 1.2 and no more than JSON can say.

Plain words are null, true, false or numbers exactly where YAML 1.2 says so: `no`, `on`, `1_000`,
`12:30` and dates are text. Keys are always text. Aliases are followed, up to a bound; tags but
!!str, merge keys and further documents are refused. Reads the parser's events, never its objects.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from stretto_sdk.plan_files.json_text import check_number, twice
from stretto_sdk.plan_files.places import Place, Spot
from stretto_sdk.plan_files.text import (
    DEPTH_MAX,
    PLAN_BYTES_MAX,
    PlanText,
    TextMistake,
    Unreadable,
    may_refer,
)

if TYPE_CHECKING:
    import yaml

_WORDS: dict[str, object] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_INTEGER = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_STR_TAG = "tag:yaml.org,2002:str"
_NODE_BYTES = 8
"""What a node weighs beside its text, when what aliases unfold to is weighed."""


def read_yaml(text: str) -> PlanText:
    """Return what a YAML text says. Raises Unreadable where it cannot be read on."""
    import yaml  # noqa: PLC0415 - who has no YAML file does not pay for loading it

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    reading = _Reading()
    try:
        for event in yaml.parse(text, Loader=loader):
            reading.take(event, yaml)
    except yaml.MarkedYAMLError as error:
        reading.stop(*_told(error, text))
    except yaml.reader.ReaderError as error:
        before = text[: error.position]
        place = Place(before.count("\n") + 1, len(before) - before.rfind("\n"))
        code = error.character if isinstance(error.character, int) else ord(error.character)
        reading.stop(place, f"is not YAML: the character U+{code:04X} is not allowed in it")
    top = reading.top
    if top is None:
        raise Unreadable(TextMistake(Place(1, 1), "is empty: a plan is an object"))
    return PlanText(top.value, lambda: top.spot, tuple(reading.mistakes), may_refer(text))


@dataclass(slots=True)
class _Node:
    """A value that was read. bytes: what it weighs with all aliases unfolded."""

    value: object
    spot: Spot
    bytes: int


@dataclass(slots=True)
class _Frame:
    """A mapping or sequence whose end has not come. key: read, and its value not yet."""

    value: dict[str, object] | list[object]
    spot: Spot
    anchor: str | None
    bytes: int = _NODE_BYTES
    key: tuple[str, Place] | None = None
    known: dict[str, Place] = field(default_factory=dict)


class _Reading:
    """Builds one value of the parser's events."""

    def __init__(self) -> None:
        self.top: _Node | None = None
        self.mistakes: list[TextMistake] = []
        self._frames: list[_Frame] = []
        self._anchors: dict[str, _Node | None] = {}
        self._documents = 0

    def stop(self, place: Place, description: str) -> None:
        """Raise Unreadable with what was found so far, and this."""
        raise Unreadable(*self.mistakes, TextMistake(place, description))

    def take(self, event: yaml.Event, events: Any) -> None:
        """Take the next event of the parser."""
        place = _place(event.start_mark)
        match event:
            case events.ScalarEvent():
                self._scalar(event, place)
            case events.MappingStartEvent():
                self._open({}, Spot(place, self._key_place(), {}), event)
            case events.SequenceStartEvent():
                self._open([], Spot(place, self._key_place(), []), event)
            case events.MappingEndEvent() | events.SequenceEndEvent():
                frame = self._frames.pop()
                node = _Node(frame.value, frame.spot, frame.bytes)
                if frame.anchor:
                    self._anchors[frame.anchor] = node
                self._put(node)
            case events.AliasEvent():
                self._alias(event.anchor, place)
            case events.DocumentStartEvent():
                self._documents += 1
                if self._documents > 1:
                    self.stop(place, "a second document begins here; a plan file holds one")

    def _open(
        self, value: dict[str, object] | list[object], spot: Spot, event: yaml.CollectionStartEvent
    ) -> None:
        if len(self._frames) == DEPTH_MAX:
            self.stop(spot.place, f"is nested more than {DEPTH_MAX} deep")
        self._refuse_tag(event.tag, spot.place, allowed=())
        if event.anchor:
            self._anchors[event.anchor] = None
        self._frames.append(_Frame(value, spot, event.anchor))

    def _scalar(self, event: yaml.ScalarEvent, place: Place) -> None:
        frame = self._frames[-1] if self._frames else None
        if frame and isinstance(frame.value, dict) and frame.key is None:
            self._take_key(frame, event, place)
            return
        self._refuse_tag(event.tag, place, allowed=(_STR_TAG, "!"))
        plain = event.style in (None, "") and event.tag is None
        value = self._resolved(event.value, place) if plain else event.value
        spot = Spot(place, self._key_place())
        node = _Node(value, spot, _NODE_BYTES + len(event.value))
        if event.anchor:
            self._anchors[event.anchor] = node
        self._put(node)

    def _take_key(self, frame: _Frame, event: yaml.ScalarEvent, place: Place) -> None:
        key = event.value
        self._refuse_tag(event.tag, place, allowed=(_STR_TAG, "!"))
        if event.style in (None, ""):
            if not key:
                self._wrong(place, "a key is missing before the colon")
            elif key == "<<":
                self._wrong(place, "merge keys (<<) are not YAML 1.2: write the members out")
        if key in frame.known:
            self._wrong(place, twice(key, frame.known[key]))
        frame.known.setdefault(key, place)
        frame.key = key, place
        if event.anchor:
            self._anchors[event.anchor] = _Node(key, Spot(place), _NODE_BYTES + len(key))

    def _alias(self, name: str, place: Place) -> None:
        frame = self._frames[-1] if self._frames else None
        if frame and isinstance(frame.value, dict) and frame.key is None:
            self.stop(place, "a key must be text, not an alias")
        if name not in self._anchors:
            self._wrong(place, f"no anchor is named {name!r} before this alias")
            node = _Node(None, Spot(place, self._key_place()), _NODE_BYTES)
        else:
            found = self._anchors[name]
            if found is None:
                self.stop(place, f"the alias {name!r} stands inside what it names: it has no end")
            assert found is not None, "stop raises"
            spot = Spot(place, self._key_place(), found.spot.members)
            node = _Node(found.value, spot, found.bytes)
        self._put(node)

    def _put(self, node: _Node) -> None:
        if not self._frames:
            self.top = node
            return
        frame = self._frames[-1]
        frame.bytes += node.bytes
        if frame.bytes > PLAN_BYTES_MAX:
            self.stop(node.spot.place, f"aliases unfold to more than {PLAN_BYTES_MAX >> 20} MiB")
        if isinstance(frame.value, list):
            frame.value.append(node.value)
            assert isinstance(frame.spot.members, list), "a list has a list's spot"
            frame.spot.members.append(node.spot)
            return
        if frame.key is None:
            self.stop(node.spot.place, "a key must be text, not a list or an object")
        assert frame.key is not None, "stop raises"
        key, _ = frame.key
        frame.key = None
        # Of a key that stands twice the first counts; that it does was noted.
        if key not in frame.value:
            frame.value[key] = node.value
            assert isinstance(frame.spot.members, dict), "a mapping has a mapping's spot"
            frame.spot.members[key] = node.spot

    def _key_place(self) -> Place | None:
        frame = self._frames[-1] if self._frames else None
        return frame.key[1] if frame and frame.key else None

    def _resolved(self, text: str, place: Place) -> object:
        if text in _WORDS:
            return _WORDS[text]
        first = text[0]
        if first not in "+-.0123456789":
            return text
        if _INTEGER.fullmatch(text) or _FLOAT.fullmatch(text):
            return self._number(text, place)
        if _NOT_FINITE.fullmatch(text):
            self._wrong(place, f"{text} is no JSON number; write null, or text in quotes")
            return 0
        return text

    def _number(self, text: str, place: Place) -> object:
        if text.startswith(("0o", "0x")):
            return int(text[2:], 8 if text[1] == "o" else 16)
        before = len(self.mistakes)
        check_number(text, lambda why: self._wrong(place, why))
        if len(self.mistakes) > before:
            return 0
        return int(text) if _INTEGER.fullmatch(text) else float(text)

    def _refuse_tag(self, tag: str | None, place: Place, *, allowed: tuple[str, ...]) -> None:
        if tag is not None and tag not in allowed:
            name = tag.replace("tag:yaml.org,2002:", "!!")
            self._wrong(place, f"the tag {name} is not taken: a plan holds plain values; remove it")

    def _wrong(self, place: Place, description: str) -> None:
        self.mistakes.append(TextMistake(place, description))


def _place(mark: Any) -> Place:
    return Place(mark.line + 1, mark.column + 1)


_HINTS = {
    "did not find expected key": "is this line indented like the ones around it?",
    "did not find expected '-' indicator": "is this line indented like the ones around it?",
    "did not find expected <document start>": "is something left over after the value?",
    "mapping values are not allowed in this context": "text with ': ' in it needs quotes",
    "could not find expected ':'": "is a colon or a quote missing, or the line above indented?",
    "found unexpected end of stream": "a quote or a bracket is not closed",
    "did not find expected ',' or ']'": "a bracket is not closed, or a comma is missing",
    "did not find expected ',' or '}'": "a brace is not closed, or a comma is missing",
}


def _told(error: yaml.MarkedYAMLError, text: str) -> tuple[Place, str]:
    mark = error.problem_mark or error.context_mark
    problem = error.problem or "it cannot be read"
    if mark and error.context_mark and not text[mark.index :].strip():
        mark = error.context_mark  # It was noticed at the very end; what is open began here.
    if mark is None or not text[mark.index :].strip():
        whole = text.rstrip()
        end = Place(whole.count("\n") + 1, len(whole) - whole.rfind("\n"))
        return end, f"is not YAML: it ends too early: {problem}"
    line = text[text.rfind("\n", 0, mark.index) + 1 : mark.index]
    character = text[mark.index : mark.index + 1]
    if "\t" in line + character:
        return _place(mark), "is not YAML: a tab cannot indent; use spaces"
    if "cannot start any token" in problem:
        why = f"is not YAML: text that starts with {json.dumps(character)} needs quotes"
        return _place(mark), why
    hint = _HINTS.get(problem)
    return _place(mark), f"is not YAML: {problem}" + (f"; {hint}" if hint else "")
