"""The part of the client that steers runs: stops them, holds them, opens them again, adds to them.

Each call returns when what it asks for is recorded, and gives the run as it is then.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from stretto.run.v1 import run_service_pb2 as pb
from stretto_core.ids import IdSource

from stretto_sdk.client_blobs import store_large
from stretto_sdk.client_logs import AnyRun, LogReading
from stretto_sdk.durations import duration_of
from stretto_sdk.plan import Plan, Span
from stretto_sdk.plan_form import parse_tasks
from stretto_sdk.runs import Run, run_of


class Steering(LogReading):
    """What a client can tell a run to do; `Client` has it all."""

    _ids: IdSource
    _namespace: str

    async def cancel(self, run: AnyRun, *, reason: str = "", grace: Span | None = None) -> Run:
        """Ask a run to stop: attempts get the signal, then clean-up tasks run; it ends CANCELLED.

        >>> await client.cancel(run, reason="not needed any more", grace="5s")

        Returns when that is recorded; `wait` for the end. Raises NotFound, FailedPrecondition
        (RUN_CLOSED: it ended otherwise).
        """
        request = pb.CancelRunRequest(
            name=self._name_of(run),
            request_id=self._ids.uuid7(),
            reason=reason,
            grace=None if grace is None else duration_of(grace),
        )
        answer = await self._calls.unary(self._calls.runs.CancelRun, request)
        return run_of(answer.run, answer.position)

    async def kill(self, run: AnyRun, *, reason: str = "") -> Run:
        """End a run at once: no clean-up, late results are refused; it is KILLED on return.

        >>> await client.kill(run, reason="runaway")

        Raises NotFound, FailedPrecondition (RUN_CLOSED: it ended otherwise).
        """
        request = pb.KillRunRequest(
            name=self._name_of(run), request_id=self._ids.uuid7(), reason=reason
        )
        answer = await self._calls.unary(self._calls.runs.KillRun, request)
        return run_of(answer.run, answer.position)

    async def retry(self, run: AnyRun, *, tasks: Sequence[str] = ()) -> Run:
        """Re-open a run that ended without success; what succeeded stays, clean-up runs again.

        >>> await client.result(await client.retry(run))

        tasks: only these of the failed and cancelled ones, and what was skipped or waited for them.
        Raises NotFound, FailedPrecondition (RUN_NOT_ENDED, NOTHING_TO_RETRY, TASK_NOT_RETRIABLE).
        """
        name, request_id = self._name_of(run), self._ids.uuid7()
        request = pb.RetryRunRequest(name=name, request_id=request_id, tasks=tasks)
        answer = await self._calls.unary(self._calls.runs.RetryRun, request)
        return run_of(answer.run, answer.position)

    async def pause(self, run: AnyRun, *, hold: str = "", reason: str = "") -> Run:
        """Put a hold on a run: nothing new is leased until `resume` lifts it; attempts go on.

        >>> await client.pause(run, reason="maintenance")

        hold: which one, "operator" by default; holds nest. Raises NotFound, FailedPrecondition.
        """
        request = pb.PauseRunRequest(
            name=self._name_of(run), request_id=self._ids.uuid7(), hold_id=hold, reason=reason
        )
        answer = await self._calls.unary(self._calls.runs.PauseRun, request)
        return run_of(answer.run, answer.position)

    async def resume(self, run: AnyRun, *, hold: str = "") -> Run:
        """Lift a hold that `pause` placed; lifting one that is not there changes nothing.

        >>> await client.resume(run)

        Raises NotFound, FailedPrecondition.
        """
        request = pb.ResumeRunRequest(
            name=self._name_of(run), request_id=self._ids.uuid7(), hold_id=hold
        )
        answer = await self._calls.unary(self._calls.runs.ResumeRun, request)
        return run_of(answer.run, answer.position)

    async def add_tasks(
        self, run: AnyRun, tasks: Plan | Sequence[Mapping[str, object]], *, sealed: bool
    ) -> Run:
        """Add a slice to a growing plan, all of it or none; `sealed` says that it is the last.

        >>> more = Plan()
        >>> more.task("next", executor="process", argv=["true"], after=["first"])
        >>> await client.add_tasks(run, more, sealed=True)

        Raises InvalidArgument, AlreadyExists (a task of that name with another spec),
        FailedPrecondition (RUN_CLOSED, PLAN_SEALED), Exhausted (TASK_LIMIT).
        """
        forms = tasks.to_form()["tasks"] if isinstance(tasks, Plan) else tasks
        request = pb.AddTasksRequest(
            name=self._name_of(run),
            request_id=self._ids.uuid7(),
            tasks=parse_tasks(forms),
            sealed=sealed,
        )
        await store_large(self._calls.blobs, self._namespace, request)
        answer = await self._calls.unary(self._calls.runs.AddTasks, request)
        return run_of(answer.run, answer.position)
