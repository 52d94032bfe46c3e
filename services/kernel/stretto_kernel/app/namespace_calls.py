"""What can be asked of the settings of namespaces: a start has to heed them."""

from __future__ import annotations

from stretto_core.eventlog.codec import Codec
from stretto_core.eventlog.port import StoreDown
from stretto_core.ids import Namespace

from stretto_kernel.app.fact_writer import Decider, FactWriter
from stretto_kernel.app.settings_stream import Ports, SettingsStream
from stretto_kernel.domain.namespace import (
    EVENTS,
    NamespacesState,
    decide,
    evolve,
)


class NamespaceCalls(SettingsStream[NamespacesState]):
    """The settings of the namespaces of one ownership of a partition; `fold` first."""

    def __init__(self, ports: Ports, facts: FactWriter) -> None:
        decider = Decider(Codec(EVENTS), decide, evolve)
        super().__init__(ports, facts, decider, kind="namespaces", new_state=NamespacesState)

    @property
    def are_set(self) -> bool:
        """Whether a setting was ever changed; after `fold`."""
        return self.decided is not None and bool(self.decided.settings)

    def encrypts(self, namespace: Namespace) -> bool:
        """Whether a run that is started now has a data key. Raises StoreDown: unknown just now."""
        if self.decided is None:
            raise StoreDown("the settings of namespaces are being read again")
        return self.decided.of(namespace).encrypts
