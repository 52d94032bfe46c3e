"""What a service reads from the environment, as documentation: each variable and what it is for.

A settings module lists its variables beside the class that holds their values; docs/settings.md is
written from that list, with the defaults of the class, and tests compare it with what is read.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Variable:
    """One variable. field: of the settings, where its value goes, `outer.inner` for one inside.

    meaning: for people.
    default: what stands for the field's own default, where that says little.
    """

    name: str
    field: str
    meaning: str
    default: str = ""
