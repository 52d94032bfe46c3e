"""Workflows that others recorded or wrote, turned into plans: one module a format.

Each module is a pure function from a parsed document to `Imported`; `document` alone reads files.
What a format says and a plan cannot is told in remarks, never dropped in silence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Imported:
    """A plan in the form of a plan file, and what a reader should know about how it was made."""

    plan: Mapping[str, object]
    remarks: Sequence[str] = ()
