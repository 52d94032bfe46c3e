"""The part of the client that reads logs: the record, its chain, and what tasks wrote."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection
from contextlib import aclosing

from stretto.tasklog.v1.task_log_service_pb2 import ReadTaskLogsRequest
from stretto_core.ids import RunId, partition_of

from stretto_sdk.client_calls import Calls
from stretto_sdk.client_log import Wanted, follow_events, recorded_events, verify_chain
from stretto_sdk.errors import InvalidArgument
from stretto_sdk.runs import ChainCheck, Event, Run
from stretto_sdk.task_log import LogEntry, read_task_log

AnyRun = Run | str
"""A run, or its id."""


class LogReading:
    """What a client reads of logs; `Client` has it all."""

    _calls: Calls
    _parent: str

    async def events(
        self,
        run: AnyRun | None = None,
        *,
        follow: bool = False,
        cursor: str = "",
        after_version: int = 0,
        types: Collection[str] = (),
        namespace: str = "",
    ) -> AsyncGenerator[Event, None]:
        """Yield the recorded facts of one run, or of all, oldest first.

        >>> async for event in client.events(run, types=["AttemptFailed", "AttemptLost"]):
        ...     print(event.version, event.type, event.body)

        follow: go on with what comes, without end, over broken connections and restarts; store
        `event.cursor` with your work and resume from it. after_version: of one run, only those
        after it. types: only these, by full name or its last part. namespace: only of this one.
        Raises NotFound, InvalidArgument (a cursor that is not ours), OutOfRange (one beyond the end
        of the log), FailedPrecondition (UNREADABLE_EVENT: a damaged one; all before it was given).
        """
        wanted = Wanted(
            stream="" if run is None else id_of(run),
            after_version=after_version,
            cursor=cursor,
            types=types,
            namespace=namespace,
        )
        read = follow_events if follow else recorded_events
        async with aclosing(read(self._calls, wanted)) as found:
            async for event in found:
                yield event

    async def logs(
        self,
        run: AnyRun,
        task: str = "",
        *,
        attempt: int = 0,
        follow: bool = False,
        tail: int = 0,
        cursor: str = "",
    ) -> AsyncGenerator[LogEntry, None]:
        """Yield what the attempts of a run's tasks wrote; of one task, or one attempt of it.

        >>> async for entry in client.logs(run, "build", follow=True):
        ...     sys.stdout.buffer.write(entry.content)

        follow: go on with what comes, until what is asked for has ended. tail: begin so many lines
        before the end; 0 = at the beginning. cursor: go on after an entry's. Raises NotFound,
        InvalidArgument.
        """
        request = ReadTaskLogsRequest(
            run=self._name_of(run),
            task=task,
            attempt=attempt,
            cursor=cursor,
            tail_line_count=tail,
            follow=follow,
        )
        async with aclosing(read_task_log(self._calls, request)) as entries:
            async for entry in entries:
                yield entry

    async def verify(self, run: AnyRun | None = None) -> ChainCheck:
        """Have the hash chain of one run, or of every stream, computed again from what is stored.

        >>> assert (await client.verify()).whole

        Raises NotFound. A broken chain is an answer, not an error.
        """
        return await verify_chain(self._calls, stream="" if run is None else id_of(run))

    def _name_of(self, run: AnyRun) -> str:
        if isinstance(run, Run):
            return f"namespaces/{run.namespace}/runs/{run.run_id}"
        return run if run.startswith("namespaces/") else f"{self._parent}/runs/{id_of(run)}"


def id_of(run: AnyRun) -> RunId:
    """The id in what names a run. Raises InvalidArgument."""
    if isinstance(run, Run):
        return run.run_id
    run_id = RunId(run.rpartition("/")[2])
    if partition_of(run_id) is None:
        raise InvalidArgument(f"{run!r} is no run id: one is p0- and 32 hexadecimal digits")
    return run_id
