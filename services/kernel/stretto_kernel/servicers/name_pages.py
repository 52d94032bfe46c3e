"""Pages of lists that are short and in the order of names: a page goes on after a name."""

from __future__ import annotations

from typing import NamedTuple

from stretto_kernel.servicers.fields import Fields
from stretto_kernel.servicers.page_tokens import decode_token, encode_token

PAGE_DEFAULT = 100
PAGE_MAX = 1_000


class NamePage(NamedTuple):
    """The page asked for: at most `size` of `kind` whose names follow `after`."""

    kind: str
    size: int
    after: str

    def next_token(self, last: str) -> str:
        """Return what asks for the page after this one, which ends with the name `last`."""
        return encode_token(self.kind, last)


def parse_name_page(fields: Fields, kind: str, size: int, token: str) -> NamePage:
    """Return the page asked for. Raises InvalidArgument with all that `fields` found wrong."""
    size = fields.page_size(size, default=PAGE_DEFAULT, largest=PAGE_MAX)
    fields.refuse("the request")
    after = ""
    if token:
        (after,) = decode_token("page_token", kind, token, part_count=1)
    return NamePage(kind, size, after)
