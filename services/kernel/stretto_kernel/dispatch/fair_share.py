"""Fair share: whose turn it is when several keys have work waiting.

Start-time fair queueing over *flows*, each the work of one fairness key in one queue. Every grant
moves its flow's turn on by one, and the flow with the lowest turn goes first: a key with a thousand
tasks waiting and a key with one take turns. A flow that begins to wait starts at the turn after the
present one: nobody saves up for later, and new flows without end keep no older one waiting. One
that could not be served for a while (its queue was at its limit) is ahead by LAG_MAX turns at most.

Pure. A flow's turn never goes back while it waits, which lets `ready_queues` find out late that a
head has to wait longer.
"""

from __future__ import annotations

LAG_MAX = 16
_SWEEP_MIN = 1_024

Flow = tuple[str, str]
"""A queue and a fairness key."""


class FairShare:
    """The turns of all flows with work waiting, and of those served lately."""

    def __init__(self) -> None:
        self._now = 0
        self._turns: dict[Flow, int] = {}
        self._waiting: dict[Flow, int] = {}

    def __len__(self) -> int:
        return len(self._turns)

    def join(self, flow: Flow) -> None:
        """One more item of the flow waits."""
        waiting = self._waiting.get(flow, 0)
        self._waiting[flow] = waiting + 1
        if not waiting:
            self._turns[flow] = max(self._turns.get(flow, 0), self._now + 1)

    def leave(self, flow: Flow) -> None:
        """One item of the flow waits no longer."""
        self._waiting[flow] -= 1
        if not self._waiting[flow]:
            del self._waiting[flow]
            if len(self._turns) > max(_SWEEP_MIN, 2 * len(self._waiting)):
                self._sweep()

    def turn(self, flow: Flow) -> int:
        """When the flow's oldest item is to go: less goes first. Only of a flow that waits."""
        return max(self._turns[flow], self._now - LAG_MAX)

    def serve(self, flow: Flow) -> None:
        """An item of the flow goes; its next one waits a turn longer."""
        turn = self.turn(flow)
        self._now = max(self._now, turn)
        self._turns[flow] = turn + 1

    def _sweep(self) -> None:
        """Forget flows without work whose turn is past: they would begin there anyway."""
        self._turns = {
            flow: turn
            for flow, turn in self._turns.items()
            if flow in self._waiting or turn > self._now + 1
        }
