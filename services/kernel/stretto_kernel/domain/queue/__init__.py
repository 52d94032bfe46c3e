"""Queues: the settings of every queue of a partition, one small aggregate.

`decide(state, command)` judges and changes nothing; `evolve(state, recorded)` changes the one owned
state in place and never refuses.
"""

from stretto_kernel.domain.queue.decide import Change, UpdateQueue, decide
from stretto_kernel.domain.queue.state import (
    EVENTS,
    KIND,
    Pause,
    QueueSettings,
    QueuesState,
    RateLimit,
    evolve,
)

__all__ = [
    "EVENTS",
    "KIND",
    "Change",
    "Pause",
    "QueueSettings",
    "QueuesState",
    "RateLimit",
    "UpdateQueue",
    "decide",
    "evolve",
]
