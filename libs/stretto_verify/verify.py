#!/usr/bin/env python3
"""Checks an export file or a proof of Stretto's log, on its own: copy it anywhere and run it.

    python verify.py FILE [--key PUBLIC_KEY] [--seal SEAL_HASH] [--json]

It needs Python 3.11, protobuf and cryptography, and nothing of Stretto: what it trusts of the file
is what it recomputes. Checked are the hash chain of every stream, the order of positions, every
seal (RFC 6962 root, Ed25519 signature, each bound to the one before) up to the seal that ends the
file, and the signature over the whole file. Without --key the file vouches for itself: compare
the key printed with the one you have from elsewhere. Without --seal an older, shorter export of
the same log passes for the whole: give the hash of the newest seal you know.

Of a proof checked are the event's hash, the way from it to the root of a seal, and the seal's
signature; --seal then names that very seal.

Exit status: 0 whole, 1 not whole (the first bad place is named), 2 wrong use.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import struct
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

MAGIC = b"STRETTO-EXPORT\x00\x01"
PROOF_MAGIC = b"STRETTO-PROOF\x00\x00\x01"
PROOF_BYTES_MAX = 16 << 20
FRAME_BYTES_MAX = 64 << 20
HASH_BYTES = 32
GENESIS = bytes(HASH_BYTES)
SEAL_PURPOSE = b"stretto.seal.v1\x00"
EXPORT_PURPOSE = b"stretto.export.v1\x00"
SEAL_TYPE = "stretto.eventlog.v1.LogSealed"
_UNSEALED = struct.Struct(">Q32s")  # Position and leaf: no larger than in the file, about.

# The few messages this reads, by number: whatever a file says of itself cannot change them.
_MESSAGES = {
    "Time": "seconds=1:int nanos=2:int",
    "Seal": "partition=1:text after_position=2:int position=3:int event_count=4:int root=5:bytes"
    " previous_seal_hash=6:bytes public_key=7:bytes signature=8:bytes",
    "Header": "partition=1:text namespace=3:text start_seal=4:Seal end_seal=5:Seal"
    " public_key=6:bytes seals_beyond=7:Seal*",
    "Exported": "position=1:int stored_bytes=2:bytes? event_hash=3:bytes?",
    "Events": "events=1:Exported*",
    "Trailer": "event_count=1:int signature=2:bytes",
    "Frame": "header=1:Header events=2:Events trailer=3:Trailer",
    "Recorded": "stream=1:text version=2:int type=4:text time=5:Time digest_alg=14:int"
    " previous_hash=15:bytes body=16:bytes",
    "Proof": "position=1:int stored_bytes=2:bytes leaf_index=3:int path=4:bytes* seal=5:Seal",
}
_KINDS: dict[str, Any] = {"int": 3, "text": 9, "bytes": 12}


def _classes() -> dict[str, Any]:
    file = descriptor_pb2.FileDescriptorProto(
        name="stretto_verify.proto", package="verify", syntax="proto3"
    )
    for message_name, fields in _MESSAGES.items():
        message = file.message_type.add(name=message_name)
        for name, number, kind, mark in re.findall(r"(\w+)=(\d+):(\w+)([*?]?)", fields):
            field = message.field.add(name=name, number=int(number), label=3 if mark == "*" else 1)
            if kind in _KINDS:
                field.type = _KINDS[kind]
            else:
                field.type_name = f".verify.{kind}"
            if mark == "?":
                field.proto3_optional = True
                field.oneof_index = len(message.oneof_decl)
                message.oneof_decl.add(name=f"_{name}")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"verify.{name}"))
        for name in _MESSAGES
    }


_CLASSES = _classes()
_FRAME, _RECORDED, _SEAL = _CLASSES["Frame"], _CLASSES["Recorded"], _CLASSES["Seal"]


class NotWhole(Exception):
    """The file does not hold what it claims; the message names the first place.

    position: of the earliest event that may be bad; None where the fault is not in an event.
    """

    def __init__(self, message: str, position: int | None = None) -> None:
        super().__init__(message)
        self.position = position


@dataclass
class Report:
    """What a whole file holds."""

    partition: str
    namespace: str
    event_count: int
    omitted_count: int
    stream_count: int
    seal_count: int
    after_position: int
    position: int
    seal_hash: str
    key: str
    fingerprint: str
    key_pinned: bool
    seal_pinned: bool


def verify(
    file: BinaryIO, *, key: bytes | None = None, seal: bytes | None = None, magic: bytes = b""
) -> Report:
    """Return what the file holds. Raises NotWhole with the first place that does not hold.

    key: the public key to trust, 32 bytes; None trusts the file's own. seal: the hash of a seal
    that the file must contain, 32 bytes. magic: the file's first 16 bytes if they were read.
    """
    frames = _Frames(file, magic or file.read(len(MAGIC)))
    header = frames.next()
    if not header.HasField("header"):
        raise NotWhole("the file does not begin with a header")
    check = _Check(header.header, key, seal)
    try:
        return _checked(frames, check)
    except NotWhole as fault:
        raise check.first_fault(fault) from None


def verify_proof(
    content: bytes, *, key: bytes | None = None, seal: bytes | None = None
) -> dict[str, Any]:
    """Return what the proof in a file, after its magic, shows. Raises NotWhole; see `verify`."""
    try:
        proof = _CLASSES["Proof"].FromString(content)
        recorded = _RECORDED.FromString(proof.stored_bytes)
    except DecodeError:
        raise NotWhole("the proof does not decode") from None
    sealed, position, previous_hash = proof.seal, proof.position, recorded.previous_hash
    key_trusted = key or sealed.public_key
    _signed(sealed, _verifier(key_trusted), key_trusted, "the seal of the proof")
    node = _leaf(max(position, 0), _hash(previous_hash, proof.stored_bytes))
    root = _up(node, proof.leaf_index, sealed.event_count, list(proof.path))
    if root != sealed.root or not sealed.after_position < position <= sealed.position:
        raise NotWhole(f"position {position}: not the event that was sealed there", position)
    if seal not in (None, _seal_hash(sealed)):
        raise NotWhole(f"it lies under another seal than yours: {_seal_hash(sealed).hex()}")
    event = f"{recorded.type} at {_place(position, recorded.stream, recorded.version)}"
    shown = {"event": event, "partition": sealed.partition, "seal_hash": _seal_hash(sealed).hex()}
    return shown | _of_key(key_trusted, key, seal)


def _of_key(trusted: bytes, key: bytes | None, seal: bytes | None) -> dict[str, Any]:
    pinned = {"key_pinned": key is not None, "seal_pinned": seal is not None}
    return {"key": trusted.hex(), "fingerprint": _fingerprint(trusted), **pinned}


def _checked(frames: _Frames, check: _Check) -> Report:
    while True:
        digest = frames.digest()
        frame = frames.next()
        if frame.HasField("trailer"):
            break
        if not frame.HasField("events"):
            raise NotWhole(f"an unknown frame before byte {frames.offset}")
        for event in frame.events.events:
            check.event(event)
    report = check.end(frame.trailer, digest)
    if frames.more():
        raise NotWhole(f"something follows the trailer, at byte {frames.offset}")
    return report


class _Frames:
    """Reads frame after frame, and digests what it has read."""

    def __init__(self, file: BinaryIO, magic: bytes) -> None:
        self._file = file
        self._digest = hashlib.sha256(magic)
        if magic != MAGIC:
            raise NotWhole("this is no export file of Stretto, or one of another version")
        self.offset = len(MAGIC)

    def next(self) -> Any:
        length = int.from_bytes(self._take(4), "big")
        if length > FRAME_BYTES_MAX:
            raise NotWhole(f"a frame of {length} bytes at byte {self.offset}")
        content = self._take(length)
        self.offset += 4 + length
        try:
            return _FRAME.FromString(content)
        except DecodeError:
            raise NotWhole(f"the frame before byte {self.offset} does not decode") from None

    def digest(self) -> bytes:
        return self._digest.digest()

    def more(self) -> bool:
        return bool(self._file.read(1))

    def _take(self, count: int) -> bytes:
        taken = self._file.read(count)
        if len(taken) != count:
            raise NotWhole("the file ends too early: it is cut off")
        self._digest.update(taken)
        return taken


class _Check:
    """Holds event after event against its stream, and each seal against the events it covers."""

    def __init__(self, header: Any, key: bytes | None, seal: bytes | None) -> None:
        self._header = header
        self._key = key or header.public_key
        if header.public_key != self._key:
            raise NotWhole(f"signed by another key, {header.public_key.hex()}")
        self._verifier = _verifier(self._key)
        self._pinned_key, self._wanted_seal = key, seal
        self._seal_seen = seal is None
        self._heads: dict[str, tuple[int, bytes, int, int]] = {}
        # A seal that does not hold says where to look; a stream may yet say which event it is.
        self._broken: NotWhole | None = None
        self._broken_until = 0
        self._unsealed = bytearray()
        self._event_count = self._omitted_count = self._seal_count = 0
        self._last_position = self._sealed_position = 0
        self._last_seal_hash = GENESIS
        if header.HasField("start_seal"):
            start = header.start_seal
            self._signed(start, "the seal the file starts with")
            self._last_position = self._sealed_position = start.position
            self._last_seal_hash = _seal_hash(start)
            self._note(self._last_seal_hash)
        self._start_position = self._sealed_position
        self._signed(header.end_seal, "the seal the file ends with")

    def event(self, exported: Any) -> None:
        position = exported.position
        if position <= self._last_position:
            raise NotWhole(f"position {position} follows position {self._last_position}", position)
        if position > self._header.end_seal.position:
            raise NotWhole(f"position {position} lies beyond the seal the file ends with")
        self._last_position = position
        self._event_count += 1
        if exported.HasField("stored_bytes"):
            event_hash = self._stored(position, exported.stored_bytes)
        elif self._header.namespace and len(exported.event_hash) == HASH_BYTES:
            self._omitted_count += 1
            event_hash = exported.event_hash
        else:
            raise NotWhole(f"the event at position {position} is missing", position)
        self._unsealed += _UNSEALED.pack(position, _leaf(position, event_hash))

    def first_fault(self, fault: NotWhole) -> NotWhole:
        """Return the fault of the earliest place: the one given, or a seal that did not hold."""
        if self._broken is None:
            return fault
        if fault.position is not None and fault.position <= self._broken_until:
            return fault
        return self._broken

    def end(self, trailer: Any, digest: bytes) -> Report:
        """Check what is left once every event was given."""
        end = self._header.end_seal
        for seal in (*self._header.seals_beyond, end):
            if _seal_hash(seal) != self._last_seal_hash:
                self._seal(seal, f"the seal at position {seal.position}")
        if self._broken is not None:
            raise self._broken
        for position, _ in _UNSEALED.iter_unpack(self._unsealed):
            raise NotWhole(f"the event at position {position} is under no seal")
        if not self._seal_seen:
            raise NotWhole(
                f"the seal you named is not in the file, which ends at position {end.position}"
            )
        if trailer.event_count != self._event_count:
            raise NotWhole("the trailer counts other events than the file holds")
        try:
            self._verifier.verify(trailer.signature, EXPORT_PURPOSE + digest)
        except InvalidSignature:
            raise NotWhole("the file was changed: its signature does not hold") from None
        return Report(
            partition=self._header.partition,
            namespace=self._header.namespace,
            event_count=self._event_count,
            omitted_count=self._omitted_count,
            stream_count=len(self._heads),
            seal_count=self._seal_count,
            after_position=self._start_position,
            position=end.position,
            seal_hash=self._last_seal_hash.hex(),
            **_of_key(self._key, self._pinned_key, self._wanted_seal),
        )

    def _stored(self, position: int, stored_bytes: bytes) -> bytes:
        """Check the event against its stream; return its hash."""
        try:
            recorded = _RECORDED.FromString(stored_bytes)
        except DecodeError:
            raise NotWhole(f"the event at position {position} does not decode", position) from None
        stream, version, previous_hash = recorded.stream, recorded.version, recorded.previous_hash
        time_ns = recorded.time.seconds * 1_000_000_000 + recorded.time.nanos
        head = self._heads.get(stream)
        if head is None:
            # In mid-life where the file does not begin with the log; the seal vouches for its hash.
            begins = self._start_position and version > 1
            head = (*((version - 1, previous_hash) if begins else (0, GENESIS)), 0, position)
        if version != head[0] + 1:
            place = _place(position, stream, version)
            raise NotWhole(f"{place}: follows version {head[0]}", position)
        if previous_hash != head[1] or len(previous_hash) != HASH_BYTES:
            place = _place(head[3], stream, head[0])
            raise NotWhole(f"{place}: not the event that version {version} follows", head[3])
        if time_ns < head[2] or recorded.digest_alg != 1:
            place = _place(position, stream, version)
            raise NotWhole(f"{place}: its time goes back, or its digest is unknown", position)
        event_hash = _hash(previous_hash, stored_bytes)
        self._heads[stream] = (version, event_hash, time_ns, position)
        if recorded.type == SEAL_TYPE and stream == f"{self._header.partition}-seals":
            self._sealed_by(recorded.body, _place(position, stream, version))
        return event_hash

    def _sealed_by(self, body: bytes, place: str) -> None:
        try:
            seal = _SEAL.FromString(body)
        except DecodeError:
            raise NotWhole(f"{place}: the seal does not decode") from None
        # A seal is recorded after what it covers: those the file starts after may lie in it.
        if seal.position > self._start_position:
            self._seal(seal, place)

    def _seal(self, seal: Any, place: str) -> None:
        """Check a seal and the events it covers, all of which were given."""
        self._signed(seal, place)
        if seal.previous_seal_hash != self._last_seal_hash:
            raise NotWhole(f"{place}: it does not follow the seal before it")
        if seal.after_position != self._sealed_position:
            raise NotWhole(f"{place}: it begins after another position than the last one ended")
        covered, last = list[bytes](), -1
        for position, leaf in _UNSEALED.iter_unpack(self._unsealed):
            if position > seal.position:
                break
            last = position
            covered.append(leaf)
        del self._unsealed[: len(covered) * _UNSEALED.size]
        sealed = last == seal.position and len(covered) == seal.event_count
        if not sealed or _root(covered) != seal.root:
            self._broken_until = self._broken_until or seal.position
            self._broken = self._broken or NotWhole(
                f"the events from position {seal.after_position + 1} to {seal.position} are not "
                f"those that were sealed: {len(covered)} given, {seal.event_count} sealed"
            )
        self._sealed_position = seal.position
        self._last_seal_hash = _seal_hash(seal)
        self._seal_count += 1
        self._note(self._last_seal_hash)

    def _signed(self, seal: Any, place: str) -> None:
        if seal.partition != self._header.partition:
            raise NotWhole(f"{place}: of another partition")
        _signed(seal, self._verifier, self._key, place)

    def _note(self, seal_hash: bytes) -> None:
        self._seal_seen = self._seal_seen or seal_hash == self._wanted_seal


def _verifier(key: bytes) -> Ed25519PublicKey:
    try:
        return Ed25519PublicKey.from_public_bytes(key)
    except ValueError:
        raise NotWhole("the public key is none") from None


def _signed(seal: Any, verifier: Ed25519PublicKey, key: bytes, place: str) -> None:
    if seal.public_key != key:
        raise NotWhole(f"{place}: signed by another key, {seal.public_key.hex()}")
    try:
        verifier.verify(seal.signature, _seal_bytes(seal))
    except InvalidSignature:
        raise NotWhole(f"{place}: its signature does not hold") from None


def _hash(previous_hash: bytes, stored_bytes: bytes) -> bytes:
    return hashlib.sha256(b"\x00" + previous_hash + stored_bytes).digest()


def _leaf(position: int, event_hash: bytes) -> bytes:
    return hashlib.sha256(b"\x00" + position.to_bytes(8, "big") + event_hash).digest()


def _up(node: bytes, index: int, width: int, path: list[bytes]) -> bytes:
    """Return the root that a path leads to; b"" when such a tree has no such path."""
    if not 0 <= index < width:
        return b""
    while width > 1:
        if index ^ 1 < width:
            if not path:
                return b""
            beside = path.pop(0)
            pair = beside + node if index % 2 else node + beside
            node = hashlib.sha256(b"\x01" + pair).digest()
        index, width = index // 2, (width + 1) // 2
    return b"" if path else node


def _place(position: int, stream: str, version: int) -> str:
    return f"position {position} ({stream} version {version})"


def _seal_bytes(seal: Any) -> bytes:
    partition: bytes = seal.partition.encode()
    numbers = (seal.after_position, seal.position, seal.event_count)
    if min(numbers) < 0 or len(partition) > 255:
        raise NotWhole("a seal with a negative number, or of no partition")
    place = b"".join(number.to_bytes(8, "big") for number in numbers)
    end: bytes = seal.root + seal.previous_seal_hash + seal.public_key
    return SEAL_PURPOSE + len(partition).to_bytes(2, "big") + partition + place + end


def _seal_hash(seal: Any) -> bytes:
    return hashlib.sha256(_seal_bytes(seal)).digest()


def _root(leaves: list[bytes]) -> bytes:
    level, sha256 = leaves, hashlib.sha256
    while len(level) > 1:
        paired = [
            sha256(b"\x01" + level[i] + level[i + 1]).digest() for i in range(0, len(level) - 1, 2)
        ]
        level = [*paired, level[-1]] if len(level) % 2 else paired
    return level[0]


def _fingerprint(key: bytes) -> str:
    return hashlib.sha256(key).hexdigest()


def _hexadecimal(text: str) -> bytes:
    if not re.fullmatch("[0-9a-fA-F]{64}", text):
        raise argparse.ArgumentTypeError("64 hexadecimal digits are needed")
    return bytes.fromhex(text)


def main() -> int:
    """Check the file the command line names; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="stretto-verify",
        description=(__doc__ or "").partition("\n")[0],
        epilog="Exit status: 0 whole, 1 not whole, 2 wrong use.",
    )
    parser.add_argument("file", help="an export file or a proof; - reads standard input")
    parser.add_argument("--key", type=_hexadecimal, help="the public key to trust, in hexadecimal")
    parser.add_argument("--seal", type=_hexadecimal, help="hash of a seal the file must contain")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    asked = parser.parse_args()
    try:
        with sys.stdin.buffer if asked.file == "-" else Path(asked.file).open("rb") as source:
            magic, pinned = source.read(len(MAGIC)), {"key": asked.key, "seal": asked.seal}
            if magic == PROOF_MAGIC:
                report = verify_proof(source.read(PROOF_BYTES_MAX), **pinned)
            else:
                report = vars(verify(source, **pinned, magic=magic))
    except OSError as error:
        parser.error(f"{asked.file}: {error.strerror}")
    except NotWhole as fault:
        shown = {"whole": False, "fault": str(fault)}
        print(json.dumps(shown) if asked.json else f"NOT WHOLE: {fault}")
        return 1
    print(json.dumps({"whole": True, **report}) if asked.json else _shown(**report))
    return 0


def _shown(key: str, seal_hash: str, partition: str, *, key_pinned: bool, **of: Any) -> str:
    signer = f"key:   {key}" + ("" if key_pinned else " (NOT PINNED: give --key)")
    if "event" in of:
        return f"proven: {of['event']}\nseal:  {seal_hash}, partition {partition}\n{signer}"
    after = f"after position {of['after_position']}" if of["after_position"] else "the first"
    omitted = f"       {of['omitted_count']:,} of them of other namespaces, by their hashes alone\n"
    return (
        f"whole: {of['event_count']:,} events of {of['stream_count']:,} stream(s), "
        f"partition {partition}, from {after} to position {of['position']}\n"
        f"{omitted if of['omitted_count'] else ''}"
        f"seals: {of['seal_count']:,} checked; the last is {seal_hash}\n{signer}"
    )


if __name__ == "__main__":
    sys.exit(main())
