"""Between events and stored bytes: the envelope, stable type names, upcasters.

Pure. Bodies are protobuf messages, named in the envelope by their full protobuf name, encoded
deterministically. Stored bytes are never re-serialised: an upcaster gets a decoded copy and
returns the message that replaces it in folds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from google.protobuf.message import DecodeError, Message
from stretto.common.v1.principal_pb2 import Principal
from stretto.eventlog.v1 import recorded_event_pb2 as pb

from stretto_core.eventlog.chain import UnreadableEvent, chain_hash
from stretto_core.eventlog.recorded import NewEvent, Recorded, StreamHead
from stretto_core.ids import EventId, Namespace, StreamId

Upcaster = Callable[[Message], Message]
"""Turns a decoded message of an old type into its successor; must not change its argument."""

_NS_PER_S = 1_000_000_000


class Cause(NamedTuple):
    """Who and what caused the events of one command; the same for all of them.

    request_digest: 32 bytes, required with request_id.
    causation_id: the event id of the fact they follow from; "" for a call from outside.
    traceparent: W3C trace context; "" without tracing.
    """

    namespace: Namespace
    principal: Principal
    request_id: str = ""
    request_digest: bytes = b""
    causation_id: str = ""
    correlation_id: str = ""
    traceparent: str = ""


class Decoded(NamedTuple):
    """A stored event taken apart; the envelope's body is as stored, `recorded.event` is upcast."""

    envelope: pb.RecordedEvent
    recorded: Recorded[Message]


class Codec:
    """Encodes and decodes the events of a set of message types.

    types: the message classes that may be stored or read.
    upcasters: old full protobuf name -> function; applied until a name without one is reached.
    """

    def __init__(
        self, types: Iterable[type[Message]], upcasters: Mapping[str, Upcaster] | None = None
    ) -> None:
        self._types = {message.DESCRIPTOR.full_name: message for message in types}
        self._upcasters = dict(upcasters or {})
        unknown = self._upcasters.keys() - self._types.keys()
        assert not unknown, f"upcasters for types that cannot be decoded: {sorted(unknown)}"
        self._written = {
            message: name for name, message in self._types.items() if name not in self._upcasters
        }

    def knows(self, type_name: str) -> bool:
        """Whether events of that full protobuf name can be read."""
        return type_name in self._types

    def encode(
        self,
        event: Message,
        *,
        stream: StreamId,
        head: StreamHead,
        event_id: EventId,
        time_ns: int,
        cause: Cause,
        key_id: int = 0,
    ) -> NewEvent:
        """Return `event` as the next one of `stream` after `head`.

        time_ns: UTC nanoseconds, not before the head's. key_id: the data key that its confidential
        fields are encrypted with already; 0 = none. The new head is the result's version,
        chain hash and this time (`next_head`).
        """
        name = self._written.get(type(event))
        assert name is not None, f"{event.DESCRIPTOR.full_name} is not written"
        assert time_ns >= head.time_ns, "event times of a stream never go back"
        envelope = pb.RecordedEvent(
            stream=stream,
            version=head.version + 1,
            event_id=event_id,
            type=name,
            namespace=cause.namespace,
            principal=cause.principal,
            request_id=cause.request_id,
            causation_id=cause.causation_id,
            correlation_id=cause.correlation_id,
            request_digest=cause.request_digest,
            traceparent=cause.traceparent,
            key_id=key_id,
            digest_alg=pb.DIGEST_ALG_SHA256,
            previous_hash=head.chain_hash,
            body=event.SerializeToString(deterministic=True),
        )
        time = envelope.time  # Set in place: a message that is made and copied costs thrice.
        time.seconds, time.nanos = divmod(time_ns, _NS_PER_S)
        stored_bytes = envelope.SerializeToString(deterministic=True)
        return NewEvent(
            stream=stream,
            version=head.version + 1,
            event_id=event_id,
            type=name,
            stored_bytes=stored_bytes,
            chain_hash=chain_hash(head.chain_hash, stored_bytes),
        )

    def decode(self, stored_bytes: bytes) -> Decoded:
        """Return the event in `stored_bytes`, upcast. Raises UnreadableEvent."""
        try:
            envelope = pb.RecordedEvent.FromString(stored_bytes)
        except DecodeError as error:
            raise UnreadableEvent("the stored bytes are not a recorded event") from error
        time = envelope.time
        return Decoded(
            envelope,
            Recorded(
                event=self._body(envelope),
                version=envelope.version,
                time_ns=time.seconds * _NS_PER_S + time.nanos,
                request_id=envelope.request_id,
                request_digest=envelope.request_digest,
                key_id=envelope.key_id,
            ),
        )

    def _body(self, envelope: pb.RecordedEvent) -> Message:
        name = envelope.type
        message_type = self._types.get(name)
        if message_type is None:
            raise _unreadable("unknown event type", envelope)
        try:
            event: Message = message_type.FromString(envelope.body)
        except DecodeError as error:
            raise _unreadable("the body does not decode", envelope) from error
        while (upcast := self._upcasters.get(name)) is not None:
            event = upcast(event)
            name = event.DESCRIPTOR.full_name
        return event


def _unreadable(message: str, envelope: pb.RecordedEvent) -> UnreadableEvent:
    return UnreadableEvent(
        message, type=envelope.type, stream=envelope.stream, version=str(envelope.version)
    )


def next_head(event: NewEvent, time_ns: int) -> StreamHead:
    """Return the stream's head after `event`, encoded with `time_ns`."""
    return StreamHead(event.version, event.chain_hash, time_ns)
