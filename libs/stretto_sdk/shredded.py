"""What stands for a value whose data key was destroyed."""

from __future__ import annotations

from enum import Enum
from typing import Final


class Shredded(Enum):
    """Stands for a value whose run was shredded: nobody can read it any more."""

    SHREDDED = "(shredded)"

    def __str__(self) -> str:
        """Return what stands in its place."""
        return self.value


SHREDDED: Final = Shredded.SHREDDED
