"""An order of tasks in which each comes after all it waits for, or a cycle that forbids one.

Pure; the cost is the tasks' and their edges'. Tasks are numbers from 0.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Sequence


def ordered(waits_for: Sequence[Collection[int]]) -> list[int]:
    """Return the tasks, level by level and within a level as given; those on or after a cycle
    are left out.
    """
    open_counts = [len(each) for each in waits_for]
    dependents: list[list[int]] = [[] for _ in waits_for]
    for number, each in enumerate(waits_for):
        for above in each:
            dependents[above].append(number)
    free = deque(number for number, count in enumerate(open_counts) if count == 0)
    order: list[int] = []
    while free:
        number = free.popleft()
        order.append(number)
        for dependent in dependents[number]:
            open_counts[dependent] -= 1
            if open_counts[dependent] == 0:
                free.append(dependent)
    return order


def cycle_beside(order: Sequence[int], waits_for: Sequence[Collection[int]]) -> list[int]:
    """Return one cycle among the tasks that `ordered` left out, its first again at the end; []
    when it left out none.
    """
    left = set(range(len(waits_for))).difference(order)
    if not left:
        return []
    # Every task left waits for another one left, so following those must come back.
    path = [min(left)]
    seen_at = {path[0]: 0}
    while True:
        following = next(each for each in waits_for[path[-1]] if each in left)
        path.append(following)
        if following in seen_at:
            return path[seen_at[following] :]
        seen_at[following] = len(path) - 1
