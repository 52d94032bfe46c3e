"""When a run ends, and how. The end is in the same append as the fact that ended its last task."""

from __future__ import annotations

from stretto.common.v1.failure_pb2 import Failure
from stretto.run.v1 import events_pb2 as ev

from stretto_kernel.domain.run.bindings import Unresolved, resolve_output
from stretto_kernel.domain.run.output_schema import REASON, violations
from stretto_kernel.domain.run.state import RunEvent, RunState
from stretto_kernel.domain.run.stopping import clean_up_over, ordinary_over


def conclude(state: RunState) -> tuple[RunEvent, ...]:
    """Return the terminal fact of a run in which nothing is left to happen, else ().

    To be asked after each command, when its facts are applied: what it returns is the last of them.
    """
    if state.end is not None or not (ordinary_over(state) and clean_up_over(state)):
        return ()
    stopping = state.stopping
    if stopping is not None and stopping.cancelled:
        return (ev.RunCancelled(reason=stopping.reason),)
    if failure := state.failure or state.clean_up_failure:
        return (ev.RunFailed(failure=failure),)
    try:
        output = resolve_output(state)
    except Unresolved as unresolved:
        return (ev.RunFailed(failure=_of_run(unresolved.failure)),)
    schema = state.policies.output_schema_json
    if schema and output is not None and (violated := violations(schema, output)):
        failure = Failure(reason=REASON, message=f"it violates its output schema: {violated}")
        return (ev.RunFailed(failure=_of_run(failure)),)
    return (ev.RunSucceeded(output=output),)


def _of_run(failure: Failure) -> Failure:
    return Failure(reason=failure.reason, message=f"the run's output: {failure.message}")
