"""Confidential fields and data keys: what is encrypted comes back, and shows nothing before."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from hypothesis import given, settings
from hypothesis import strategies as st
from stretto.common.v1.payload_pb2 import Payload
from stretto.run.v1 import events_pb2
from stretto_core.ids import RunId
from stretto_kernel.adapters.memory_run_keys import MemoryRunKeys
from stretto_kernel.app.confidential import (
    SLICE_BEARERS,
    decrypt,
    decrypting,
    encrypted,
    is_confidential,
    reveal,
)
from stretto_kernel.app.data_key import DataKey, Undecryptable, key_id_of
from stretto_kernel.app.run_keys import RunKeys

KEY = DataKey(7, b"s" * 32, secrets.token_bytes)

EVENTS = [getattr(events_pb2, name) for name in sorted(events_pb2.DESCRIPTOR.message_types_by_name)]

CLEAR = frozenset(
    {
        # Names of tasks, executors, queues, workers, holds, keys: what a view sorts and filters by.
        "task", "tasks", "name", "executor", "queue", "fairness_key", "worker_id", "session_id",
        "hold_id", "request_id", "display_name", "content_type", "key", "keys",
        # Reason words, and what people give as their reason.
        "reason", "non_retryable_reasons",
        # Where in a value something lies, not what.
        "pointer",
        # Digests: of ciphertext (blobs), or made with the key (outcomes, manifests).
        "digest", "outcome_digest", "manifest_digest",
        # Verifiers by name; refused in this version.
        "verifiers",
        # The ciphertext itself.
        "encrypted",
    }
)  # fmt: skip
"""Text and bytes fields of events that stay clear, and why: docs/encryption.md says the same."""


def is_entry(descriptor: Any) -> bool:
    return bool(descriptor.GetOptions().map_entry)


def fields_of(descriptor: Any, seen: set[str]) -> Iterator[FieldDescriptor]:
    if descriptor.full_name in seen:
        return
    seen.add(descriptor.full_name)
    for field in descriptor.fields:
        yield field
        if field.message_type is not None:
            yield from fields_of(field.message_type, seen)


def test_every_text_of_an_event_is_confidential_or_said_to_stay_clear() -> None:
    texts = (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES)
    seen: set[str] = set()
    open_fields = {
        field.full_name
        for event in EVENTS
        for field in fields_of(event.DESCRIPTOR, seen)
        if field.type in texts
        and not is_confidential(field)
        and field.name not in CLEAR
        and not is_entry(field.containing_type)
    }
    assert open_fields == set(), "mark it confidential, or say here why it stays clear"


def test_the_maps_that_stay_clear_are_labels() -> None:
    seen: set[str] = set()
    maps = {
        field.name
        for event in EVENTS
        for field in fields_of(event.DESCRIPTOR, seen)
        if field.message_type is not None
        and field.message_type.GetOptions().map_entry
        and field.message_type.fields_by_name["value"].message_type is None
    }
    assert maps == {"labels", "required_labels", "preferred_labels"}


SECRET = "s3cr3t-in-the-value"


def filled(descriptor: Any, message: Message, draw: st.DataObject, depth: int = 0) -> None:
    """Set fields of a message at random; confidential ones hold the secret."""
    for field in descriptor.fields:
        if field.name in ("encrypted", "shredded") or not draw.draw(st.booleans()):
            continue
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            value = field.message_type.fields_by_name["value"]
            if value.message_type is None:
                getattr(message, field.name)["label"] = "clear"
            elif depth < 5:
                filled(value.message_type, getattr(message, field.name)["a"], draw, depth + 1)
        elif field.message_type is not None:
            if depth >= 6:
                continue
            child = (
                getattr(message, field.name).add()
                if field.is_repeated
                else getattr(message, field.name)
            )
            if not field.is_repeated:
                child.SetInParent()
            filled(field.message_type, child, draw, depth + 1)
        elif is_confidential(field):
            is_text = field.type == FieldDescriptor.TYPE_STRING
            text = draw.draw(st.sampled_from([SECRET, ""]))
            setattr(message, field.name, text if is_text else text.encode())
        elif field.type == FieldDescriptor.TYPE_STRING and not field.is_repeated:
            setattr(message, field.name, "clear")


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: str(event.DESCRIPTOR.name))
@settings(max_examples=40, deadline=None)
@given(draw=st.data())
def test_what_is_encrypted_comes_back_and_shows_nothing(
    event: type[Message], draw: st.DataObject
) -> None:
    fact = event()
    filled(fact.DESCRIPTOR, fact, draw)
    before = fact.SerializeToString(deterministic=True)
    stored = encrypted(fact, KEY)
    assert fact.SerializeToString(deterministic=True) == before, "the state keeps the clear fact"
    text = stored.SerializeToString(deterministic=True)
    assert SECRET.encode() not in text
    back = event.FromString(text)
    decrypt(back, KEY)
    assert back == fact
    gone = event.FromString(text)
    reveal(gone, lambda _: None)
    shown = gone.SerializeToString(deterministic=True)
    assert SECRET.encode() not in shown
    if text != before:
        assert gone != fact, "what is gone is marked"


def test_equal_values_are_encrypted_differently_each_time() -> None:
    assert KEY.encrypt(b"yes", b"c") != KEY.encrypt(b"yes", b"c")


def test_ciphertext_says_its_key_and_fits_no_other_context_key_or_bytes() -> None:
    ciphertext = KEY.encrypt(b"yes", b"payload")
    assert key_id_of(ciphertext) == 7
    assert key_id_of(b"anything else") == 0
    assert KEY.decrypt(ciphertext, b"payload") == b"yes"
    wrongs: tuple[Callable[[], bytes], ...] = (
        lambda: KEY.decrypt(ciphertext, b"failure"),
        lambda: DataKey(7, b"t" * 32, secrets.token_bytes).decrypt(ciphertext, b"payload"),
        lambda: DataKey(8, b"s" * 32, secrets.token_bytes).decrypt(ciphertext, b"payload"),
        lambda: KEY.decrypt(ciphertext[:-1] + bytes([ciphertext[-1] ^ 1]), b"payload"),
        lambda: KEY.decrypt(b"", b"payload"),
    )
    for wrong in wrongs:
        with pytest.raises(Undecryptable):
            wrong()


async def test_more_keys_than_are_kept_in_memory_open_what_they_encrypted() -> None:
    keys = RunKeys(MemoryRunKeys(), keys_max=4)
    made = [await keys.make(RunId(f"p0-{number}")) for number in range(6)]
    stored = [encrypted(Payload(json=str(key.key_id)), key) for key in made]
    for first in (0, 2, 0, 1):
        page = [Payload.FromString(each.SerializeToString()) for each in stored[first : first + 4]]
        await keys.reveal(page)
        assert [each.json for each in page] == [
            str(key.key_id) for key in made[first : first + 4]
        ], "what is told to be shredded was"


def test_a_key_is_never_printed() -> None:
    assert repr(KEY) == "DataKey(7)"


async def test_a_large_message_is_decrypted_in_parts() -> None:
    plan = events_pb2.TasksAdded()
    for number in range(2 * SLICE_BEARERS + 1):
        plan.tasks.add(name=f"t{number}", arguments_json='["secret"]')
    sent = encrypted(plan, KEY)
    assert b"secret" not in sent.SerializeToString()
    turns = list(decrypting(sent, KEY))
    assert sent == plan
    assert len(turns) >= 2
