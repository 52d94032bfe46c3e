"""Typed values of a run as plain ones, and back: for snapshots, which are read by the same version.

A composed value is a list whose first element says what it is; classes are found by their number
among those of the state's modules, and values that many tasks share stand once in a table. Nothing
of this is the record: whenever a rule changes, `rules_word` does, and what was written before is
not read any more.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import fields, is_dataclass
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable
from itertools import islice
from operator import attrgetter
from typing import Any

from google.protobuf import descriptor_pool, message_factory
from google.protobuf.message import Message

from stretto_kernel.domain import requests
from stretto_kernel.domain.run import blackboard_state, holds, plan, state, task

Form = Any
"""None, a number, text, bytes, or a list of forms."""

_ATOMS = frozenset({type(None), bool, int, float, str, bytes})
_TUPLE, _LIST, _DICT, _SET, _FROZEN_SET, _OWNER, _SHARED, _MESSAGE, _REQUESTS = range(9)
_FIRST_CLASS = 9
_SHARED_CLASSES = (plan.Join, plan.Retry, plan.Timeouts)
_MODULES = (blackboard_state, holds, plan, state, task)
_CLASSES = tuple(
    each
    for module in _MODULES
    for _, each in sorted(vars(module).items())
    if isinstance(each, type)
    and (is_dataclass(each) or hasattr(each, "_fields"))
    and each.__module__ == module.__name__
)
"""Dataclasses and named tuples."""


class Packing:
    """Makes forms; `shared` is the table that they refer to, once all are made."""

    def __init__(self) -> None:
        self.shared: list[Form] = []
        self._numbers: dict[object, int] = {}
        self._packers: dict[type, Callable[[Any], Form]] = {
            tuple: lambda value: [_TUPLE, *self._each(value)],
            list: lambda value: [_LIST, *self._each(value)],
            set: lambda value: [_SET, *self._each(sorted(value))],
            frozenset: lambda value: [_FROZEN_SET, *self._each(sorted(value))],
            dict: lambda value: self._pairs(_DICT, value),
            requests.Requests: lambda value: self._pairs(_REQUESTS, value),
            object: lambda _: [_OWNER],
        }
        for number, each in enumerate(_CLASSES, start=_FIRST_CLASS):
            self._packers[each] = self._class_packer(number, each)
        for each in _SHARED_CLASSES:
            self._packers[each] = self._sharing(self._packers[each])

    def pack(self, value: object) -> Form:
        """Return the form of a value."""
        if type(value) in _ATOMS:
            return value
        packer = self._packers.get(type(value))
        if packer is None:
            assert isinstance(value, Message), f"no form of {type(value)}"
            name = self._number_of(value.DESCRIPTOR.full_name, lambda name: name)
            return [_MESSAGE, name, value.SerializeToString(deterministic=True)]
        return packer(value)

    def _each(self, values: Iterable[object]) -> list[Form]:
        # Most are atoms: a call for each would be half of the cost.
        return [value if type(value) in _ATOMS else self.pack(value) for value in values]

    def _class_packer(self, number: int, kind: type[Any]) -> Callable[[Any], Form]:
        each = self._each
        if issubclass(kind, tuple):
            return lambda value: [number, *each(value)]
        names = [field.name for field in fields(kind)]
        if len(names) > 1:
            read = attrgetter(*names)
            return lambda value: [number, *each(read(value))]
        return lambda value: [number, *each(getattr(value, name) for name in names)]

    def _sharing(self, pack: Callable[[Any], Form]) -> Callable[[Any], Form]:
        return lambda value: [_SHARED, self._number_of(value, pack)]

    def _number_of(self, value: object, pack: Callable[[Any], Form]) -> int:
        key = (type(value), value)  # Named tuples of two classes may be equal.
        number = self._numbers.get(key)
        if number is None:
            number = self._numbers[key] = len(self.shared)
            self.shared.append(pack(value))
        return number

    def _pairs(self, kind: int, value: dict[Any, Any]) -> Form:
        form: Form = [kind]
        for key, each in value.items():
            form += (self.pack(key), self.pack(each))
        return form


class Unpacking:
    """Makes values of forms. shared: the table; owner: stands for the owner of every record."""

    def __init__(self, shared: Iterable[Form], owner: object) -> None:
        self._unpackers: list[Callable[[Any], Any]] = [
            lambda form: tuple(self._each(form)) if len(form) > 1 else (),
            lambda form: self._each(form) if len(form) > 1 else [],
            lambda form: dict(self._pairs(form)) if len(form) > 1 else {},
            lambda form: set(self._each(form)),
            lambda form: frozenset(self._each(form)),
            lambda _: owner,
            lambda form: self._shared[form[1]],
            lambda form: _message_class(self._shared[form[1]]).FromString(form[2]),
            lambda form: requests.Requests(self._pairs(form)),
            *map(self._class_unpacker, _CLASSES),
        ]
        self._shared: list[Any] = []
        self._shared += map(self.unpack, shared)

    def unpack(self, form: Form) -> Any:
        """Return the value of a form."""
        return self._unpackers[form[0]](form) if type(form) is list else form

    def _each(self, form: Form) -> list[Any]:
        unpackers = self._unpackers
        return [
            each if type(each) is not list else unpackers[each[0]](each)
            for each in islice(form, 1, None)
        ]

    def _class_unpacker(self, kind: type[Any]) -> Callable[[Any], Any]:
        each = self._each
        if issubclass(kind, tuple):
            return lambda form: kind(*each(form))
        if not kind.__dataclass_params__.frozen:
            return lambda form: kind(*each(form))
        setters = [getattr(kind, field.name).__set__ for field in fields(kind)]

        def frozen(form: Form) -> Any:
            # Past its __init__, which costs a frozen value twice as much.
            value: Any = object.__new__(kind)
            for put, member in zip(setters, each(form), strict=True):
                put(value, member)
            return value

        return frozen

    def _pairs(self, form: Form) -> Iterable[tuple[Any, Any]]:
        values = self._each(form)
        return zip(values[::2], values[1::2], strict=True)


@cache
def rules_word() -> str:
    """Return a word for the rules of this version: another one for any other text of theirs."""
    digest = hashlib.sha256()
    for name, text in sorted(_texts(resources.files("stretto_kernel.domain"))):
        digest.update(f"{name}\0{len(text)}\0".encode() + text)
    return digest.hexdigest()


def _texts(folder: Traversable, below: str = "") -> Iterable[tuple[str, bytes]]:
    for each in folder.iterdir():
        if each.is_dir():
            yield from _texts(each, f"{below}{each.name}/")
        elif each.name.endswith(".py"):
            yield f"{below}{each.name}", each.read_bytes()


@cache
def _message_class(name: str) -> type[Message]:
    found: type[Message] = message_factory.GetMessageClass(
        descriptor_pool.Default().FindMessageTypeByName(name)
    )
    return found
