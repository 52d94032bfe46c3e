"""Namespaces: the settings of every namespace of a partition, one small aggregate.

`decide(state, command)` judges and changes nothing; `evolve(state, recorded)` changes the one owned
state in place and never refuses.
"""

from stretto_kernel.domain.namespace.decide import UpdateNamespace, decide
from stretto_kernel.domain.namespace.state import (
    EVENTS,
    NamespaceSettings,
    NamespacesState,
    evolve,
)

__all__ = [
    "EVENTS",
    "NamespaceSettings",
    "NamespacesState",
    "UpdateNamespace",
    "decide",
    "evolve",
]
