"""The settings of the namespaces as folded. Pure. Instants are UTC nanoseconds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from stretto.namespace.v1 import events_pb2 as ev
from stretto_core.eventlog.recorded import Recorded
from stretto_core.ids import Namespace

from stretto_kernel.domain.requests import Requests


@dataclass(frozen=True, slots=True, kw_only=True)
class NamespaceSettings:
    """What holds for the runs that are started in a namespace.

    version, changed_ns: of the newest fact about the namespace; 0 = there is none.
    """

    encrypts: bool = False
    version: int = 0
    changed_ns: int = 0

    @property
    def etag(self) -> str:
        """Changes with every change of the settings."""
        return str(self.version)


DEFAULTS = NamespaceSettings()


class NamespacesState:
    """The settings of all namespaces of a partition."""

    def __init__(self) -> None:
        self.version = 0
        self.requests = Requests()
        self.settings: dict[Namespace, NamespaceSettings] = {}

    def of(self, namespace: Namespace) -> NamespaceSettings:
        """Those of any namespace."""
        return self.settings.get(namespace, DEFAULTS)


def evolve(state: NamespacesState, recorded: Recorded[Any]) -> None:
    """Apply one recorded fact in place. Never refuses."""
    assert recorded.version == state.version + 1, "a fold takes every version once, in order"
    state.version = recorded.version
    event: ev.PayloadEncryptionChanged = recorded.event
    state.settings[Namespace(event.namespace)] = NamespaceSettings(
        encrypts=event.encrypt_payloads, version=recorded.version, changed_ns=recorded.time_ns
    )
    if recorded.request_id:
        state.requests.remember(recorded)


EVENTS = (ev.PayloadEncryptionChanged,)
"""Every event type of the stream."""
