"""Tasks the dispatcher still has to look at: those of large facts, a bounded part a stretch.

A fold, a large slice or a lifted hold concerns up to as many tasks as a run has. Only ready tasks
wait here: a lease is looked at in the stretch that shows it. Until its turn a task is not offered,
which loses nothing, and whatever happens to it meanwhile is looked at as it happens.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterable
from itertools import islice

from stretto_core.ids import RunId, TaskName

TASKS_PER_STRETCH = 200


class LaterLooks:
    """What waits, by run, in the order it came.

    look: looks at one task of a run. offer_again: offers so many that a lifted hold had kept back;
    whether some are left. done: called after each part.
    """

    def __init__(
        self,
        look: Callable[[RunId, TaskName], None],
        offer_again: Callable[[RunId, int], bool],
        done: Callable[[], None],
    ) -> None:
        self._look = look
        self._offer_again = offer_again
        self._done = done
        self._tasks: OrderedDict[RunId, dict[TaskName, None]] = OrderedDict()
        self._kept_back: OrderedDict[RunId, None] = OrderedDict()
        self._posted = False

    def add(self, run_id: RunId, tasks: Iterable[TaskName]) -> None:
        """Look at the first of the tasks now, and at what is too much for one stretch later."""
        rest = iter(tasks)
        for task in islice(rest, TASKS_PER_STRETCH):
            self._look(run_id, task)
        later = dict.fromkeys(rest)
        if later:
            self._tasks.setdefault(run_id, {}).update(later)
            self._post()

    def add_kept_back(self, run_id: RunId) -> None:
        """Offer what a hold of the run had kept back: the same way."""
        if self._offer_again(run_id, TASKS_PER_STRETCH):
            self._kept_back[run_id] = None
            self._post()

    def forget_run(self, run_id: RunId) -> None:
        """Nothing of the run is looked at any more."""
        self._tasks.pop(run_id, None)
        self._kept_back.pop(run_id, None)

    def _post(self) -> None:
        if not self._posted:
            self._posted = True
            asyncio.get_running_loop().call_soon(self._look_on)

    def _look_on(self) -> None:
        self._posted = False
        if self._kept_back:
            run_id, _ = self._kept_back.popitem(last=False)
            self.add_kept_back(run_id)
        elif self._tasks:
            run_id, tasks = next(iter(self._tasks.items()))
            for task in list(islice(tasks, TASKS_PER_STRETCH)):
                del tasks[task]
                self._look(run_id, task)
            if not tasks:
                self._tasks.pop(run_id, None)
        if self._kept_back or self._tasks:
            self._post()
        self._done()
