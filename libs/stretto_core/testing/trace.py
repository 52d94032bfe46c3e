"""The last things that happened in a simulation, kept for the report of a failing seed."""

from __future__ import annotations

from collections import deque

from stretto_core.clock import NS_PER_S
from stretto_core.testing.virtual_loop import START_NS, VirtualLoop


class Trace:
    """Lines with their virtual time, the newest `length_max` of them; never secrets."""

    def __init__(self, loop: VirtualLoop, *, length_max: int = 200) -> None:
        self._loop = loop
        self._lines: deque[tuple[int, str, str]] = deque(maxlen=length_max)

    def note(self, kind: str, text: str) -> None:
        """Remember that `text` happened now; `kind` is fault, frame, event, call or world."""
        self._lines.append((self._loop.now_ns, kind, text))

    def __str__(self) -> str:
        return "\n".join(
            f"  {(at_ns - START_NS) / NS_PER_S:12.6f}s {kind:6} {text}"
            for at_ns, kind, text in self._lines
        )
