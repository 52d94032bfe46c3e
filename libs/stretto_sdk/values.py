"""Values of any size: inline while they are small, a blob when they are not, and back again.

Owns when a payload becomes a blob and how a composed value is put together. Sizes are bytes.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Protocol

from stretto.common.v1.payload_pb2 import BlobRef, Payload, ValuePart
from stretto.run.v1 import plan_pb2
from stretto_core.errors import InvalidArgument

from stretto_sdk.blobs import Source
from stretto_sdk.strict_json import parse_json
from stretto_sdk.value_sizes import INLINE_BYTES_MAX, READ_BYTES_MAX, TASK_INLINE_BYTES_MAX

JSON = "application/json"
_INDEX = re.compile(r"0\Z|[1-9][0-9]*\Z")


class Blobs(Protocol):
    """Where blobs are kept."""

    async def put(self, namespace: str, source: Source) -> BlobRef:
        """Store the bytes unless they are there, and return what names them."""
        ...

    async def get(self, namespace: str, digest: bytes) -> bytes:
        """Return a whole blob."""
        ...


class ValueUnresolved(InvalidArgument):
    """A part of a composed value is not there: no repetition helps."""

    reason = "INPUT_UNRESOLVED"


class ValueTooLarge(InvalidArgument):
    """The blobs of a value come to more than is read at once."""

    reason = "INPUT_TOO_LARGE"


@dataclass(frozen=True, slots=True)
class Blob:
    """A value that was not fetched: `Client.fetch` returns it.

    sha256: the digest of its bytes in hexadecimal; "" for a value made of several blobs.
    """

    sha256: str
    size_bytes: int
    content_type: str
    _payload: Payload = field(repr=False)


def is_stored(payload: Payload) -> bool:
    """Whether reading the value takes blobs."""
    return payload.WhichOneof("value") in ("blob", "composed")


def size_of(payload: Payload) -> int:
    """Return the bytes of an inline value."""
    return len(payload.json.encode()) + len(payload.data)


async def stored(blobs: Blobs, namespace: str, payload: Payload) -> Payload:
    """Return the value as a payload that may cross the system: itself, or a blob put for it."""
    return await _put(blobs, namespace, payload) if size_of(payload) > INLINE_BYTES_MAX else payload


async def store_literals(blobs: Blobs, namespace: str, tasks: Iterable[plan_pb2.TaskSpec]) -> None:
    """Put the literal inputs of tasks that are too large, and name them in their place."""
    for task in tasks:
        literals = [
            binding.literal for binding in task.inputs.values() if binding.HasField("literal")
        ]
        literals.sort(key=size_of)
        left_bytes = TASK_INLINE_BYTES_MAX
        for literal in literals:
            left_bytes -= size_of(literal)
            if left_bytes < 0 or size_of(literal) > INLINE_BYTES_MAX:
                literal.CopyFrom(await _put(blobs, namespace, literal))


def has_large_literals(tasks: Iterable[plan_pb2.TaskSpec]) -> bool:
    """Whether `store_literals` has anything to do."""
    for task in tasks:
        if task.ByteSize() <= INLINE_BYTES_MAX:
            continue
        sizes = [size_of(each.literal) for each in task.inputs.values()]
        if max(sizes, default=0) > INLINE_BYTES_MAX or sum(sizes) > TASK_INLINE_BYTES_MAX:
            return True
    return False


async def fetched(blobs: Blobs, namespace: str, payload: Payload) -> Payload:
    """Return the value inline, fetched and put together; an inline one as it is.

    Raises ValueUnresolved, ValueTooLarge, and what a blob that cannot be got raises.
    """
    check_size([payload])
    match payload.WhichOneof("value"):
        case "blob":
            content = await blobs.get(namespace, payload.blob.digest)
            return _inline(content, payload.content_type)
        case "composed":
            composed = payload.composed
            texts = [await _part_text(blobs, namespace, part) for part in composed.parts]
            text = await asyncio.to_thread(_joined, texts) if composed.list else texts[0]
            return Payload(json=text)
        case _:
            return payload


def check_size(payloads: Iterable[Payload]) -> None:
    """Raise ValueTooLarge when the blobs of the values come to more than is read at once."""
    size_bytes = sum(_stored_bytes(payload) for payload in payloads)
    if size_bytes > READ_BYTES_MAX:
        raise ValueTooLarge(
            f"its blobs come to {size_bytes} bytes; at most {READ_BYTES_MAX} are read",
            size_bytes=str(size_bytes),
            bytes_max=str(READ_BYTES_MAX),
        )


def blob_of(payload: Payload) -> Blob:
    """Return a stored value as a handle."""
    digest = payload.blob.digest.hex() if payload.HasField("blob") else ""
    content_type = payload.content_type or (
        "application/octet-stream" if payload.HasField("blob") else JSON
    )
    return Blob(digest, _stored_bytes(payload), content_type, payload)


async def _put(blobs: Blobs, namespace: str, payload: Payload) -> Payload:
    is_json = payload.WhichOneof("value") == "json"
    content = payload.json.encode() if is_json else payload.data
    blob = await blobs.put(namespace, content)
    return Payload(blob=blob, content_type=payload.content_type or (JSON if is_json else ""))


def _stored_bytes(payload: Payload) -> int:
    match payload.WhichOneof("value"):
        case "blob":
            return payload.blob.size_bytes
        case "composed":
            # One blob may stand there many times, with other pointers: each is read.
            return sum(part.value.blob.size_bytes for part in payload.composed.parts)
        case _:
            return 0


def _inline(content: bytes, content_type: str) -> Payload:
    if content_type != JSON:
        return Payload(data=content, content_type=content_type)
    try:
        return Payload(json=content.decode())
    except UnicodeDecodeError:
        raise ValueUnresolved("a blob that is said to be JSON is not UTF-8") from None


async def _part_text(blobs: Blobs, namespace: str, part: ValuePart) -> str:
    text = (await fetched(blobs, namespace, part.value)).json
    return await asyncio.to_thread(_pointed, text, part.pointer) if part.pointer else text


def _joined(texts: list[str]) -> str:
    return f"[{','.join(texts)}]"


def _pointed(text: str, pointer: str) -> str:
    """Return the part of a text that a JSON Pointer (RFC 6901) names. Raises ValueUnresolved."""
    value = parse_json(text, source="a blob", bytes_max=READ_BYTES_MAX)
    for escaped in pointer[1:].split("/"):
        token = escaped.replace("~1", "/").replace("~0", "~")
        if isinstance(value, dict) and token in value:
            value = value[token]
        elif isinstance(value, list) and _INDEX.match(token) and int(token) < len(value):
            value = value[int(token)]
        else:
            raise ValueUnresolved(f"a blob has nothing at {pointer!r}", pointer=pointer)
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
