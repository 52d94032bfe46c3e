"""Typed checks of request fields: every field, every limit, all violations at once.

Each method returns the parsed value, or a harmless stand-in after noting what is wrong; `refuse`
raises with the whole list. Knows the limits of the contracts and no rule of the domain, which
checks plans itself. Durations are nanoseconds inside.
"""

from __future__ import annotations

import re

from google.protobuf.descriptor import Descriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from stretto_core.clock import NS_PER_S
from stretto_core.ids import RUN_ID_PATTERN, Namespace, RequestId, RunId

from stretto_kernel.domain.run.findings import Findings

REQUEST_ID_CHARACTERS_MAX = 128
DEFAULT_NAMESPACE = Namespace("default")

_NAMESPACE = re.compile(r"namespaces/([a-z0-9][a-z0-9-]{0,62})")
_RUN = re.compile(r"namespaces/([a-z0-9][a-z0-9-]{0,62})/runs/([^/]+)")


class Fields(Findings):
    """The checks of one request."""

    def namespace(self, field: str, text: str) -> Namespace:
        """The tenant in namespaces/*; empty = default."""
        if not text:
            return DEFAULT_NAMESPACE
        match = _NAMESPACE.fullmatch(text)
        if match is None:
            self.wrong(field, "must be namespaces/ and 1-63 characters of [a-z0-9-]")
            return DEFAULT_NAMESPACE
        return Namespace(match.group(1))

    def run(self, field: str, text: str) -> tuple[Namespace, RunId]:
        """The tenant and run id in namespaces/*/runs/*."""
        match = _RUN.fullmatch(text)
        if match is None or not RUN_ID_PATTERN.match(match.group(2)):
            self.wrong(field, "must be namespaces/*/runs/* with a run id")
            return DEFAULT_NAMESPACE, RunId("")
        return Namespace(match.group(1)), RunId(match.group(2))

    def request_id(self, text: str) -> RequestId:
        """The client's idempotency key, required."""
        if not 0 < len(text) <= REQUEST_ID_CHARACTERS_MAX or not text.isprintable():
            self.wrong("request_id", "must be 1-128 printable characters, kept in a repeated call")
        return RequestId(text)

    def text(self, field: str, text: str, *, characters_max: int) -> str:
        """Text for people."""
        self.check_text(field, text, characters_max=characters_max)
        return text

    def span(self, field: str, span: Duration, *, most_s: int) -> int:
        """A span of 0 to `most_s` in nanoseconds."""
        self.check_span(field, span, least_ns=0, most_s=most_s)
        return span.seconds * NS_PER_S + span.nanos

    def page_size(self, size: int, *, default: int, largest: int) -> int:
        """How many a page holds: 0 = default, too large clamped, negative refused."""
        self.count("page_size", size)
        return min(size or default, largest)

    def count(self, field: str, value: int) -> int:
        """A number that is not negative."""
        if value < 0:
            self.wrong(field, "must not be negative")
        return value

    def mask(self, field: str, mask: FieldMask, of: Descriptor) -> FieldMask:
        """Fields of a message; empty = all."""
        if not mask.IsValidForDescriptor(of):
            self.wrong(field, f"names a field that {of.name} does not have")
        return mask
