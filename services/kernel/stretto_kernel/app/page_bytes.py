"""How much one answer may hold: messages end at 4 MiB, whatever the number of their parts."""

from __future__ import annotations

from collections.abc import Iterable

PAGE_BYTES_MAX = 3 * 1024 * 1024
"""Of the parts of a page; what is around them has the rest of the message."""


def count_within(sizes_bytes: Iterable[int], bytes_max: int) -> int:
    """Return how many parts from the first come to at most `bytes_max`; 1 at least, if any."""
    count = total_bytes = 0
    for size_bytes in sizes_bytes:
        total_bytes += size_bytes
        if count and total_bytes > bytes_max:
            break
        count += 1
    return count
