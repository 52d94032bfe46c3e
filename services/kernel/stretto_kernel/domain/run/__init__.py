"""The run: one durable execution of a plan, its tasks and their attempts.

`decide(state, command)` judges and never changes anything; `evolve(state, recorded)` changes the
one owned state in place and never refuses. The shell folds a stream into `new_run(...)`, decides,
applies each event at once, applies the end that `conclude(state)` finds, appends all of it, and
then asks the queries what to offer, arm and signal for the tasks `state.take_touched()` names.
"""

from stretto_kernel.domain.run.decide import decide
from stretto_kernel.domain.run.ending import conclude
from stretto_kernel.domain.run.evolve import evolve
from stretto_kernel.domain.run.state import RunEvent, RunState, Touched, new_run

__all__ = ["RunEvent", "RunState", "Touched", "conclude", "decide", "evolve", "new_run"]
