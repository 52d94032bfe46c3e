"""Foreign ids as task names: letters, digits, `.`, `_`, `#`, `-`, and no two alike."""

from __future__ import annotations

import re
from collections.abc import Iterable

NAME_CHARACTERS_MAX = 128
_VALID = re.compile(rf"[A-Za-z0-9._#-]{{1,{NAME_CHARACTERS_MAX}}}\Z")
_FOREIGN = re.compile(r"[^A-Za-z0-9._#-]+")


def task_names(ids: Iterable[str]) -> list[str]:
    """Return a name for each id, in order.

    An id that is a name already keeps it, whatever stands before it. In others each run of foreign
    characters becomes `_`; what is then taken gets `#2`, `#3` and so on.
    """
    wanted = list(ids)
    kept = {each for each in wanted if _VALID.match(each)}
    taken = set(kept)
    # How far the numbers of a stem are given out: many equal ones must not be counted from 2 anew.
    numbers: dict[str, int] = {}
    names: list[str] = []
    for each in wanted:
        if each in kept:
            kept.remove(each)
            names.append(each)
            continue
        stem = _FOREIGN.sub("_", each)[:NAME_CHARACTERS_MAX] or "task"
        name = stem
        while name in taken:
            numbers[stem] = numbers.get(stem, 1) + 1
            suffix = f"#{numbers[stem]}"
            name = f"{stem[: NAME_CHARACTERS_MAX - len(suffix)]}{suffix}"
        taken.add(name)
        names.append(name)
    return names
