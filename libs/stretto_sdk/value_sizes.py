"""How large values may be, inline and as blobs. Sizes are bytes."""

from __future__ import annotations

from typing import Final

INLINE_BYTES_MAX: Final = 64 * 1024
"""Of a payload that stands in a fact; a larger one is a blob."""
TASK_INLINE_BYTES_MAX: Final = 256 * 1024
"""Of the literal inputs of one task; beyond it the largest become blobs: a slice holds it."""
READ_BYTES_MAX: Final = 256 << 20
"""What the blobs of one value, or of the inputs of one attempt, come to at most when read."""
BLOB_BYTES_MAX: Final = 1 << 30
