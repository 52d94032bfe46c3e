"""Whoever changes an export file, at a random place, without the private key or with another."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Sequence

from stretto.eventlog.v1.export_pb2 import ExportedEvent, ExportFrame
from stretto.eventlog.v1.recorded_event_pb2 import RecordedEvent
from stretto.eventlog.v1.seal_pb2 import LogSealed
from stretto_core.eventlog.chain import GENESIS, chain_hash
from stretto_core.eventlog.export import MAGIC, ExportWriter
from stretto_core.eventlog.merkle import leaf_hash, root_of
from stretto_core.eventlog.recorded import StoredEvent
from stretto_core.eventlog.seals import SEALED_TYPE, Covered, SealKey, new_seal
from stretto_core.ids import Partition, StreamId

Attack = Callable[[bytes, random.Random, Sequence[bytes]], bytes]
"""Changes a file. Gets the stored bytes of another history of the same log, event for event."""


def frames_of(data: bytes) -> list[ExportFrame]:
    frames, at = [], len(MAGIC)
    while at < len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        frames.append(ExportFrame.FromString(data[at + 4 : at + 4 + length]))
        at += 4 + length
    return frames


def joined(frames: list[ExportFrame]) -> bytes:
    parts = [frame.SerializeToString() for frame in frames]
    return MAGIC + b"".join(len(part).to_bytes(4, "big") + part for part in parts)


def events_of(data: bytes) -> list[ExportedEvent]:
    return [event for frame in frames_of(data) for event in frame.events.events]


def flip(data: bytes, chance: random.Random, _: Sequence[bytes]) -> bytes:
    at = chance.randrange(len(data))
    return data[:at] + bytes([data[at] ^ (1 << chance.randrange(8))]) + data[at + 1 :]


def truncate(data: bytes, chance: random.Random, _: Sequence[bytes]) -> bytes:
    return data[: chance.randrange(len(data))]


def _of_events(
    change: Callable[[list[ExportedEvent], random.Random, Sequence[bytes]], None],
) -> Attack:
    def attack(data: bytes, chance: random.Random, other: Sequence[bytes]) -> bytes:
        frames = frames_of(data)
        events = [event for frame in frames for event in frame.events.events]
        change(events, chance, other)
        header, trailer = frames[0], frames[-1]
        trailer.trailer.event_count = len(events)
        body = ExportFrame()
        body.events.events.extend(events)
        return joined([header, body, trailer])

    return attack


def _drop(events: list[ExportedEvent], chance: random.Random, _: Sequence[bytes]) -> None:
    del events[chance.randrange(len(events))]


def _swap(events: list[ExportedEvent], chance: random.Random, _: Sequence[bytes]) -> None:
    first, second = chance.sample(range(len(events)), 2)
    one, other = events[first], events[second]
    one.stored_bytes, other.stored_bytes = other.stored_bytes, one.stored_bytes


def _insert(events: list[ExportedEvent], chance: random.Random, _: Sequence[bytes]) -> None:
    at = chance.randrange(len(events))
    forged = copy.deepcopy(events[at])
    forged.position += chance.choice([0, 1])
    events.insert(at + 1, forged)


def _replay(events: list[ExportedEvent], chance: random.Random, _: Sequence[bytes]) -> None:
    at = chance.randrange(1, len(events))
    events[at].stored_bytes = events[chance.randrange(at)].stored_bytes


def _fork(events: list[ExportedEvent], chance: random.Random, other: Sequence[bytes]) -> None:
    """Let another history of the same log begin at a random place."""
    for index in range(chance.randrange(len(events)), len(events)):
        events[index].stored_bytes = other[index]


def _hide(events: list[ExportedEvent], chance: random.Random, _: Sequence[bytes]) -> None:
    events[chance.randrange(len(events))].event_hash = chance.randbytes(32)


ATTACKS: dict[str, Attack] = {
    "flip": flip,
    "truncate": truncate,
    "drop": _of_events(_drop),
    "swap": _of_events(_swap),
    "insert": _of_events(_insert),
    "replay": _of_events(_replay),
    "fork": _of_events(_fork),
    "hide": _of_events(_hide),
}


def forged(data: bytes, key: SealKey, change: Callable[[int, RecordedEvent], bool]) -> bytes:
    """Return a file in which everything fits, made again by whoever has `key` and not the real one.

    change: gets the index of each event that is no seal, and may change it; False leaves it out.
    """
    heads: dict[str, bytes] = {}
    versions: dict[str, int] = {}
    unsealed: list[tuple[int, bytes]] = []
    events: list[StoredEvent] = []
    newest: LogSealed | None = None
    partition = Partition(frames_of(data)[0].header.partition)

    def seal_to(position: int) -> LogSealed:
        covered = [leaf for place, leaf in unsealed if place <= position]
        last = unsealed[len(covered) - 1][0]
        after = 0 if newest is None else newest.position
        seal = new_seal(
            key, partition, newest, Covered(after, last, len(covered), root_of(covered))
        )
        del unsealed[: len(covered)]
        return seal

    for index, exported in enumerate(events_of(data)):
        recorded = RecordedEvent.FromString(exported.stored_bytes)
        if recorded.type == SEALED_TYPE:
            newest = seal_to(LogSealed.FromString(recorded.body).position)
            recorded.body = newest.SerializeToString(deterministic=True)
        elif not change(index, recorded):
            continue
        recorded.version = versions[recorded.stream] = versions.get(recorded.stream, 0) + 1
        recorded.previous_hash = heads.get(recorded.stream, GENESIS)
        stored_bytes = recorded.SerializeToString(deterministic=True)
        event_hash = heads[recorded.stream] = chain_hash(recorded.previous_hash, stored_bytes)
        unsealed.append((exported.position, leaf_hash(exported.position, event_hash)))
        events.append(
            StoredEvent(
                exported.position,
                StreamId(recorded.stream),
                recorded.version,
                recorded.type,
                stored_bytes,
            )
        )
    newest = seal_to(events[-1].position)
    writer = ExportWriter(key, start=None, end_seal=newest)
    return writer.begin(10**18) + writer.add(events) + writer.end()
