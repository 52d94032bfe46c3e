"""Ended runs that stay in memory for those who ask soon: bounded in runs and in their tasks."""

from __future__ import annotations

from collections import OrderedDict

from stretto_core.ids import RunId

from stretto_kernel.app.hosted_run import HostedRun

TASKS_MAX = 50_000
"""The tasks of all ended runs in memory, whatever their number."""


class EndedRuns:
    """Which ended runs are in memory, the one that ended first first."""

    def __init__(self, runs_max: int) -> None:
        self._runs_max = runs_max
        self._runs: OrderedDict[RunId, HostedRun] = OrderedDict()
        self._task_count = 0

    def keep(self, run: HostedRun) -> list[HostedRun]:
        """Keep a run that has ended; return those that are to leave memory for it."""
        self.forget(run.run_id)
        self._runs[run.run_id] = run
        self._task_count += run.state.task_count
        leaving = []
        while len(self._runs) > self._runs_max or (
            self._task_count > TASKS_MAX and len(self._runs) > 1
        ):
            old = next(iter(self._runs.values()))
            self.forget(old.run_id)
            leaving.append(old)
        return leaving

    def forget(self, run_id: RunId) -> None:
        """The run goes on, or its memory is void: it is no ended one. Idempotent."""
        if (old := self._runs.pop(run_id, None)) is not None:
            self._task_count -= old.state.task_count
