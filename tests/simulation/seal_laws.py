"""What must hold of every seal, judged from the committed events alone; and who caused each event.

Written without the sealer on purpose: the root is computed from the leaves at once, as the export's
verifier does it.
"""

from __future__ import annotations

from stretto.common.v1.principal_pb2 import PRINCIPAL_KIND_UNSPECIFIED
from stretto.eventlog.v1.recorded_event_pb2 import RecordedEvent
from stretto.eventlog.v1.seal_pb2 import LogSealed
from stretto_core.eventlog.chain import GENESIS, chain_hash
from stretto_core.eventlog.merkle import leaf_hash, root_of
from stretto_core.eventlog.recorded import StoredEvent
from stretto_core.eventlog.seals import AUDIT_NAMESPACE, SEALED_TYPE, is_signed, seal_hash
from stretto_core.testing.log_watch import InvariantBroken


class SealLaws:
    """Checks each committed event against all before it. Raises InvariantBroken."""

    def __init__(self) -> None:
        self.seal_count = 0
        self._newest: LogSealed | None = None
        self._unsealed: list[tuple[int, bytes, bool]] = []
        self._place = ""

    @property
    def unsealed_count(self) -> int:
        """How many events are under no seal, seals not counted."""
        return sum(not is_seal for _, _, is_seal in self._unsealed)

    def check(self, stored: StoredEvent) -> None:
        """Look at the next event of the log."""
        envelope = RecordedEvent.FromString(stored.stored_bytes)
        self._place = f"{stored.stream} version {stored.version}: {stored.type}"
        self._caused(envelope)
        is_seal = stored.type == SEALED_TYPE
        if is_seal:
            self._hold(stored.stream == "p0-seals", "a seal lies in the stream of seals")
            self._hold(envelope.namespace == AUDIT_NAMESPACE, "a seal is nobody's")
            self._sealed(LogSealed.FromString(envelope.body))
        event_hash = chain_hash(envelope.previous_hash, stored.stored_bytes)
        self._unsealed.append((stored.position, leaf_hash(stored.position, event_hash), is_seal))

    def _sealed(self, seal: LogSealed) -> None:
        newest = self._newest
        after, previous = (0, GENESIS) if newest is None else (newest.position, seal_hash(newest))
        self._hold(seal.after_position == after, f"a seal after {seal.after_position}, not {after}")
        self._hold(seal.previous_seal_hash == previous, "a seal names the one before")
        covered = [leaf for position, leaf, _ in self._unsealed if position <= seal.position]
        self._hold(bool(covered), "a seal covers something")
        self._hold(seal.event_count == len(covered), "a seal covers every event up to its position")
        self._hold(self._unsealed[len(covered) - 1][0] == seal.position, "and ends with one")
        self._hold(seal.root == root_of(covered), "a seal has the root of what it covers")
        self._hold(is_signed(seal), "a seal is signed")
        if newest is not None:
            self._hold(seal.public_key == newest.public_key, "one key signs for ever")
        idle = all(is_seal for _, _, is_seal in self._unsealed[: len(covered)])
        self._hold(not idle, "seals do not beget seals")
        self._newest = seal
        self.seal_count += 1
        del self._unsealed[: len(covered)]

    def _caused(self, envelope: RecordedEvent) -> None:
        """Every event says who caused it, and by which request or from which fact it follows."""
        principal = envelope.principal
        known = principal.kind != PRINCIPAL_KIND_UNSPECIFIED and bool(principal.name)
        self._hold(known, "an event names its principal")
        self._hold(bool(envelope.request_id or envelope.causation_id), "an event has a cause")

    def _hold(self, holds: bool, law: str) -> None:
        if not holds:
            raise InvariantBroken(f"seals: {law} ({self._place})")
