"""What is wrong with a request, collected so that everything is reported at once.

Also the limits of single values that plans, inputs and results share.
"""

from __future__ import annotations

import json
import re
from functools import lru_cache

from google.protobuf.duration_pb2 import Duration
from stretto.common.v1.payload_pb2 import BlobRef, Payload
from stretto_core.clock import NS_PER_S
from stretto_core.errors import FieldViolation, InvalidArgument, Unimplemented

VIOLATIONS_MAX = 100
PAYLOAD_BYTES_MAX = 64 * 1024
BLOB_BYTES_MAX = 1 << 30
DIGEST_BYTES = 32
SPAN_S_MAX = 366 * 24 * 3600
LABELS_MAX = 64
LABEL_KEY = re.compile(r"[a-z0-9._-]{1,63}\Z")
LABEL_VALUE_CHARS_MAX = 255
JUDGED_CHARS_MAX = 1_024
"""Of a text whose judgement as JSON is remembered."""


class Findings:
    """Collects wrong fields and features not served; `refuse` raises if there are any."""

    def __init__(self) -> None:
        self._violations: list[FieldViolation] = []
        self._features: list[tuple[str, str]] = []
        self._count = 0

    @property
    def any(self) -> bool:
        """Whether `refuse` would raise."""
        return bool(self._violations or self._features)

    def copy(self) -> Findings:
        """Return what was found, to find more without adding to this."""
        twin = Findings()
        twin._violations = self._violations.copy()
        twin._features = self._features.copy()
        twin._count = self._count
        return twin

    def wrong(self, field: str, description: str) -> None:
        """Note a wrong field by its path."""
        self._count += 1
        if self._count <= VIOLATIONS_MAX:
            self._violations.append(FieldViolation(field, description))

    def unserved(self, field: str, feature: str) -> None:
        """Note a part of the contract that this version does not serve."""
        self._features.append((field, feature))

    def refuse(self, what: str) -> None:
        """Raise InvalidArgument with every wrong field, else Unimplemented, else return."""
        if self._violations:
            first = self._violations[0]
            more = f", and {self._count - 1} more" if self._count > 1 else ""
            raise InvalidArgument(
                f"{what} is not valid: {first.field}: {first.description}{more}",
                violations=self._violations,
                violation_count=str(self._count),
            )
        if self._features:
            field, feature = self._features[0]
            raise Unimplemented(
                f"{field} asks for {feature}, which this version does not serve",
                feature=feature,
                field=field,
            )

    def check_span(
        self, field: str, span: Duration, *, least_ns: int = 1, most_s: int = SPAN_S_MAX
    ) -> None:
        """Note a span that is not a valid Duration between the bounds, ends included."""
        if not 0 <= span.nanos < NS_PER_S or span.seconds < 0:
            self.wrong(field, "is not a valid positive duration")
            return
        span_ns = span.seconds * NS_PER_S + span.nanos
        if span_ns < least_ns:
            least = f"at least {least_ns / NS_PER_S:g} s" if least_ns > 1 else "longer than 0s"
            self.wrong(field, f"must be {least}")
        elif span_ns > most_s * NS_PER_S:
            self.wrong(field, f"must be at most {most_s} s")

    def check_payload(self, field: str, payload: Payload, *, is_inline: bool = False) -> None:
        """Note a value that is too large, not JSON, or named wrongly.

        is_inline: it may not be a blob.
        """
        match payload.WhichOneof("value"):
            case "json":
                self.check_json(f"{field}.json", payload.json, or_blob=not is_inline)
            case "data":
                if len(payload.data) > PAYLOAD_BYTES_MAX:
                    self.wrong(f"{field}.data", _too_large(or_blob=not is_inline))
            case "blob" if is_inline:
                self.wrong(f"{field}.blob", "details are given inline")
            case "blob":
                self.check_blob(f"{field}.blob", payload.blob)
            case "composed":
                self.wrong(f"{field}.composed", "is made by the kernel only")
            case "encrypted" | "shredded" as made:
                self.wrong(f"{field}.{made}", "is made by the kernel only")
        if len(payload.content_type) > LABEL_VALUE_CHARS_MAX:
            self.wrong(f"{field}.content_type", "is longer than 255 characters")

    def check_blob(self, field: str, blob: BlobRef) -> None:
        """Note a name that no blob can have."""
        self.check_digest(f"{field}.digest", blob.digest)
        if not 0 <= blob.size_bytes <= BLOB_BYTES_MAX:
            self.wrong(f"{field}.size_bytes", f"must be 0 to {BLOB_BYTES_MAX}")

    def check_digest(self, field: str, digest: bytes) -> None:
        """Note what is no SHA-256."""
        if len(digest) != DIGEST_BYTES:
            self.wrong(field, f"must be a SHA-256, {DIGEST_BYTES} bytes")

    def check_json(
        self, field: str, text: str, *, wants_object: bool = False, or_blob: bool = False
    ) -> None:
        """Note text that is too large or not JSON as RFC 8259 has it.

        or_blob: a larger one may be a blob.
        """
        if _is_larger(text, PAYLOAD_BYTES_MAX):
            self.wrong(field, _too_large(or_blob=or_blob))
            return
        if wants_object and text == "{}":
            return
        if not wants_object and len(text) <= JUDGED_CHARS_MAX and _is_json(text):
            return
        try:
            value = parse_json(text)
        except (ValueError, RecursionError) as error:
            self.wrong(field, f"is not JSON: {error}")
            return
        if wants_object and not isinstance(value, dict):
            self.wrong(field, "must be a JSON object")

    def check_text(self, field: str, text: str, *, characters_max: int) -> None:
        """Note text for people that is too long, or that no view can hold (a NUL character)."""
        if len(text) > characters_max:
            self.wrong(field, f"is longer than {characters_max} characters")
        if "\0" in text:
            self.wrong(field, "holds a NUL character")

    def check_labels(self, field: str, labels: dict[str, str]) -> None:
        """Note labels beyond 64, or with keys or values beyond their limits."""
        if len(labels) > LABELS_MAX:
            self.wrong(field, f"has more than {LABELS_MAX} entries")
        for key, value in labels.items():
            if not LABEL_KEY.match(key):
                self.wrong(f"{field}[{key!r}]", "the key must be 1-63 characters of [a-z0-9._-]")
            self.check_text(f"{field}[{key!r}]", value, characters_max=LABEL_VALUE_CHARS_MAX)


def _is_larger(text: str, bytes_max: int) -> bool:
    # A character has four bytes at most.
    return len(text) * 4 > bytes_max and len(text.encode()) > bytes_max


@lru_cache(maxsize=1_024)
def _is_json(text: str) -> bool:
    """Whether it is; remembered, since the edge and the decider both ask, and values return."""
    try:
        parse_json(text)
    except (ValueError, RecursionError):
        return False
    return True


def _too_large(*, or_blob: bool) -> str:
    advice = ": put it by BlobService.PutBlob and name it as a blob" if or_blob else ""
    return f"is larger than {PAYLOAD_BYTES_MAX} bytes{advice}"


def parse_json(text: str) -> object:
    """Return the value of a JSON text. Raises ValueError, on NaN and duplicate keys too."""
    return _DECODER.decode(text)


def _no_constant(word: str) -> object:
    raise ValueError(f"{word} is not JSON")


def _no_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("an object has a key twice")
    return value


_DECODER = json.JSONDecoder(parse_constant=_no_constant, object_pairs_hook=_no_duplicates)
