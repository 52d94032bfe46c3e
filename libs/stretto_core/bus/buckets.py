"""The buckets port: key-value mirrors on the bus. Never the record: what is lost is made anew.

A key holds the newest revision that was ever put to it: an older one, put again, changes nothing,
so that whoever feeds a mirror may repeat as much as it likes. Names of buckets are letters, digits,
`-` and `_`; keys are words of letters, digits, `-`, `_`, `=` and `/`, joined by dots.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from stretto_core.errors import NotFound


class BucketMissing(NotFound):
    """There is no such bucket, or it lost what it held: make it, and put everything into it."""


class BucketValue(NamedTuple):
    """What a key is to hold. revision: 1 or more, rises with every change of the key."""

    key: str
    revision: int
    value: bytes


class Buckets(Protocol):
    """Keeps buckets. Every method raises Unavailable, and may be repeated then."""

    async def exists(self, bucket: str) -> bool:
        """Tell whether there is a bucket."""
        ...

    async def make(self, bucket: str) -> None:
        """Make a bucket; one that is there stays as it is.

        What is put next is measured by what it holds now, whoever made it.
        """
        ...

    async def clear(self, bucket: str, first_word: str) -> None:
        """Remove every key that begins with that word. Raises BucketMissing."""
        ...

    async def put_newer(self, bucket: str, values: Sequence[BucketValue]) -> None:
        """Put values, each key once; those that are not newer change nothing.

        Raises BucketMissing, also when a key to change lost what was put to it since `make`.
        """
        ...

    async def get(self, bucket: str, key: str) -> BucketValue | None:
        """Return what a key holds. Raises BucketMissing."""
        ...


class MemoryBuckets:
    """Buckets inside one process: the test double."""

    def __init__(self) -> None:
        self.buckets: dict[str, dict[str, BucketValue]] = {}

    async def exists(self, bucket: str) -> bool:
        """See `Buckets`."""
        return bucket in self.buckets

    async def make(self, bucket: str) -> None:
        """See `Buckets`."""
        self.buckets.setdefault(bucket, {})

    async def clear(self, bucket: str, first_word: str) -> None:
        """See `Buckets`."""
        held = self._held(bucket)
        for key in [key for key in held if key.partition(".")[0] == first_word]:
            del held[key]

    async def put_newer(self, bucket: str, values: Sequence[BucketValue]) -> None:
        """See `Buckets`."""
        held = self._held(bucket)
        for value in values:
            before = held.get(value.key)
            if before is None or before.revision < value.revision:
                held[value.key] = value

    async def get(self, bucket: str, key: str) -> BucketValue | None:
        """See `Buckets`."""
        return self._held(bucket).get(key)

    def _held(self, bucket: str) -> dict[str, BucketValue]:
        if bucket not in self.buckets:
            raise BucketMissing("no such bucket", bucket=bucket)
        return self.buckets[bucket]
