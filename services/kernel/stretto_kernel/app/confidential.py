"""The confidential fields of messages: moved out of sight with a key, and back.

Which fields those are the contracts say (option `confidential`); a message type with any has a
field `encrypted` for the ciphertext of all of them. Found by reflection, once a type, so that a new
field cannot be forgotten. Pure but for the key's nonces.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError, Message
from stretto.common.v1.confidential_pb2 import confidential

from stretto_kernel.app.data_key import DataKey, Undecryptable, key_id_of

ENCRYPTED = "encrypted"
SHREDDED = "(shredded)"
"""Stands in a text for what nobody can read any more; a value has Payload.shredded."""

SLICE_BEARERS = 250

KeyOf = Callable[[int], DataKey | None]
"""Finds a key by its id; None when it was destroyed."""
Fact = TypeVar("Fact", bound=Message)


@dataclass(frozen=True, slots=True)
class Form:
    """What of a message type is confidential, and through which fields such types are reached.

    confidential: names of its own fields. inner: name, and whether it is a map, repeated, or one.
    """

    confidential: tuple[str, ...]
    inner: tuple[tuple[str, bool, bool], ...]
    marks_value: bool


def form_of(message: Message) -> Form:
    """Return the form of a message's type."""
    descriptor: Any = message.DESCRIPTOR
    form = _FORMS.get(descriptor.full_name)
    if form is None:
        form = _FORMS[descriptor.full_name] = _read_form(descriptor)
    return form


def encrypted(fact: Fact, key: DataKey) -> Fact:
    """Return the fact as it may leave the kernel: itself if it bears nothing confidential."""
    form = form_of(fact)
    if not form.confidential and not form.inner:
        return fact
    copy = type(fact)()
    copy.CopyFrom(fact)
    for bearer in list(_bearers(copy)):
        _encrypt(bearer, key)
    return copy


def decrypt(message: Message, key: DataKey) -> None:
    """Put back, in place, what was encrypted with `key`. Raises Undecryptable."""
    reveal(message, lambda _: key)


def decrypting(message: Message, key: DataKey) -> Generator[None, None, None]:
    """Put back, in place, what was encrypted with `key`, as `revealing` does."""
    return revealing(message, lambda _: key)


def reveal(message: Message, key_of: KeyOf) -> None:
    """Put back, in place, what was encrypted; mark what nobody can decrypt any more.

    Raises Undecryptable.
    """
    for _ in revealing(message, key_of):
        pass


def revealing(message: Message, key_of: KeyOf) -> Generator[None, None, None]:
    """Do what `reveal` does as it is iterated, some milliseconds of it at a time."""
    for number, bearer in enumerate(_bearers(message), start=1):
        if ciphertext := getattr(bearer, ENCRYPTED):
            key = key_of(key_id_of(ciphertext))
            if key is None:
                _mark(bearer)
            else:
                _decrypt(bearer, ciphertext, key)
        if number % SLICE_BEARERS == 0:
            yield


def key_ids_in(messages: Iterable[Message]) -> set[int]:
    """Return the keys that are needed to reveal the messages."""
    return {
        key_id_of(ciphertext)
        for message in messages
        for bearer in _bearers(message)
        if (ciphertext := getattr(bearer, ENCRYPTED))
    }


def _encrypt(bearer: Message, key: DataKey) -> None:
    part = type(bearer)()
    for name in form_of(bearer).confidential:
        if _is_set(bearer, name):
            setattr(part, name, getattr(bearer, name))
            bearer.ClearField(name)
    # An empty text is still one in a oneof: by what is set, and not by the bytes.
    if part.ListFields():
        plain = part.SerializeToString(deterministic=True)
        setattr(bearer, ENCRYPTED, key.encrypt(plain, _context(bearer)))


def _decrypt(bearer: Message, ciphertext: bytes, key: DataKey) -> None:
    plain = key.decrypt(ciphertext, _context(bearer))
    bearer.ClearField(ENCRYPTED)
    try:
        bearer.MergeFromString(plain)
    except DecodeError as error:
        raise Undecryptable("what was encrypted is no message") from error


def _mark(bearer: Any) -> None:
    form = form_of(bearer)
    bearer.ClearField(ENCRYPTED)
    if form.marks_value:
        bearer.shredded.SetInParent()
        return
    for name in form.confidential:
        setattr(bearer, name, SHREDDED)


def _bearers(message: Message) -> Iterator[Message]:
    """Yield the messages within that have confidential fields, innermost first."""
    form = form_of(message)
    for name, is_map, is_repeated in form.inner:
        if is_map:
            for child in getattr(message, name).values():
                yield from _bearers(child)
        elif is_repeated:
            for child in getattr(message, name):
                yield from _bearers(child)
        elif message.HasField(name):
            yield from _bearers(getattr(message, name))
    if form.confidential:
        yield message


def _is_set(message: Message, name: str) -> bool:
    field = message.DESCRIPTOR.fields_by_name[name]
    return message.HasField(name) if field.has_presence else bool(getattr(message, name))


def _context(message: Message) -> bytes:
    return message.DESCRIPTOR.full_name.encode()


def _read_form(descriptor: Descriptor) -> Form:
    own = tuple(field.name for field in descriptor.fields if is_confidential(field))
    inner = tuple(
        (field.name, _is_map(field), field.is_repeated)
        for field in descriptor.fields
        if (child := _child(field)) is not None and _reaches(child, frozenset())
    )
    assert not own or ENCRYPTED in descriptor.fields_by_name, descriptor.full_name
    return Form(own, inner, "shredded" in descriptor.fields_by_name)


def is_confidential(field: FieldDescriptor) -> bool:
    """Whether the contracts say so of the field."""
    return bool(field.GetOptions().Extensions[confidential])


def _reaches(descriptor: Descriptor, above: frozenset[str]) -> bool:
    """Whether the type may hold something confidential; types may contain each other."""
    if descriptor.full_name in above:
        return False
    here = above | {descriptor.full_name}
    return any(
        is_confidential(field) or ((child := _child(field)) is not None and _reaches(child, here))
        for field in descriptor.fields
    )


def _child(field: FieldDescriptor) -> Descriptor | None:
    """Return the type of the messages in a field: of a map, that of its values."""
    if field.message_type is None:
        return None
    if _is_map(field):
        value: Descriptor | None = field.message_type.fields_by_name["value"].message_type
        return value
    inner: Descriptor = field.message_type
    return inner


def _is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry


_FORMS: dict[str, Form] = {}
