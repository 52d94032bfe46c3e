"""What the numbers of the contract's enums are called here.

A newer kernel may send a number that this version has no name for: it is UNKNOWN, never an error.
"""

from __future__ import annotations

from enum import StrEnum
from functools import cache
from typing import TypeVar

from google.protobuf.internal.enum_type_wrapper import EnumTypeWrapper

UNKNOWN = "UNKNOWN"

Word = TypeVar("Word", bound=StrEnum)


@cache
def word_of(enum: EnumTypeWrapper, number: int) -> str:
    """Return the name of a number without the enum's own; "" for the one that says nothing."""
    values = enum.DESCRIPTOR.values_by_number
    if number == 0:
        return ""
    if number not in values:
        return UNKNOWN
    return values[number].name.removeprefix(values[0].name.removesuffix("UNSPECIFIED"))


@cache
def member_of(words: type[Word], enum: EnumTypeWrapper, number: int) -> Word:
    """Return the member that a number stands for; `words` has one named UNKNOWN."""
    found = words.__members__.get(word_of(enum, number))
    return words[UNKNOWN] if found is None else found
