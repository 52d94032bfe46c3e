"""The offline verifier against whoever changes an export without the private key."""

from __future__ import annotations

import functools
import io
import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import stretto_verify.verify as verifier
from stretto_core.eventlog.seals import seal_hash
from stretto_verify.verify import NotWhole, Report, verify

from tests.unit.audit.attacks import ATTACKS, forged, frames_of, joined
from tests.unit.audit.logs import FOREIGN_KEY, KEY, SealedLog, sealed_log

ATTACKS_PER_KIND = 80  # Of eight kinds, on two files: over a thousand.


def check(
    data: bytes, *, key: bytes | None = KEY.public_bytes, seal: bytes | None = None
) -> Report:
    return verify(io.BytesIO(data), key=key, seal=seal)


@pytest.fixture(scope="module")
def log() -> SealedLog:
    return sealed_log()


def test_a_whole_file_says_what_it_holds(log: SealedLog) -> None:
    report = check(log.export())
    covered = [event for event in log.events if event.position <= log.seals[-1].position]
    assert (report.event_count, report.omitted_count) == (len(covered), 0)
    assert report.stream_count == len({event.stream for event in covered})
    assert report.seal_count == len(log.seals)
    assert report.seal_hash == seal_hash(log.seals[-1]).hex()
    assert report.key_pinned and not report.seal_pinned


def test_events_without_a_seal_take_no_more_memory_than_they_take_in_the_file(
    log: SealedLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A seal may come late, or in a made-up file never: nothing else bounds what waits for it."""
    held: list[int] = []
    add = verifier._Check.event

    def noted(check: Any, exported: Any) -> None:
        add(check, exported)
        held.append(sys.getsizeof(check._unsealed))

    monkeypatch.setattr(verifier._Check, "event", noted)
    monkeypatch.setattr(verifier._Check, "_sealed_by", lambda *_: None)
    data = log.export()
    with pytest.raises(NotWhole):
        check(data)
    assert max(held) <= len(data)
    assert len(held) * 40 <= max(held), "all of them waited"


@pytest.mark.parametrize("start", [0, 2, 4])
@pytest.mark.parametrize("end", [5, -1])
def test_a_part_between_two_seals_is_whole(log: SealedLog, start: int, end: int) -> None:
    report = check(log.export(start=log.seals[start], end=log.seals[end]))
    assert (report.after_position, report.position) == (
        log.seals[start].position,
        log.seals[end].position,
    )


def test_one_namespace_is_whole_and_the_others_are_only_counted(log: SealedLog) -> None:
    data = log.export(namespace="acme")
    report = check(data)
    covered = [event for event in log.events if event.position <= log.seals[-1].position]
    others = [event for event in covered if event.stream.startswith(("default", "late"))]
    assert (report.event_count, report.omitted_count) == (len(covered), len(others))
    assert b"default-" not in data


@functools.cache
def another_history() -> list[bytes]:
    return [event.stored_bytes for event in sealed_log(salt="another ").events]


@pytest.mark.parametrize("kind", sorted(ATTACKS))
@pytest.mark.parametrize("namespace", ["", "acme"])
def test_every_attack_without_the_key_is_found(log: SealedLog, kind: str, namespace: str) -> None:
    data = log.export(namespace=namespace)
    chance = random.Random(f"{kind} {namespace}")
    for number in range(ATTACKS_PER_KIND):
        changed = ATTACKS[kind](data, chance, another_history())
        if changed == data:
            continue
        with pytest.raises(NotWhole):
            check(changed)
            pytest.fail(f"{kind} {number} was not found")


@pytest.mark.parametrize("kind", ["drop", "swap", "insert", "replay"])
def test_an_attack_on_events_is_found_by_the_events_and_not_by_the_signature_of_the_file(
    log: SealedLog, kind: str
) -> None:
    chance = random.Random(kind)
    for _ in range(50):
        with pytest.raises(NotWhole, match="position"):
            check(ATTACKS[kind](log.export(), chance, another_history()))


def test_the_first_bad_event_is_named(log: SealedLog) -> None:
    frames = frames_of(log.export())
    bad = frames[3].events.events[5]
    bad.stored_bytes = bad.stored_bytes.replace(b"event-", b"evenT-")
    with pytest.raises(NotWhole, match=rf"^position {bad.position} \(default-\d version \d+\)"):
        check(joined(frames))


def test_the_last_event_of_a_stream_is_named_by_the_range_its_seal_covers(log: SealedLog) -> None:
    frames = frames_of(log.export())
    seal = frames[0].header.end_seal
    *_, bad = (event for event in frames[-2].events.events if event.position <= seal.position)
    bad.stored_bytes = bad.stored_bytes.replace(b"event-", b"evenT-")
    expected = rf"from position {seal.after_position + 1} to {seal.position}"
    with pytest.raises(NotWhole, match=expected):
        check(joined(frames))


def test_a_history_made_again_with_another_key_is_whole_only_for_who_pins_none(
    log: SealedLog,
) -> None:
    data = log.export()
    assert check(forged(data, KEY, lambda *_: True)).event_count == check(data).event_count

    def leave_out_the_tenth(index: int, _: object) -> bool:
        return index != 10

    without = forged(data, FOREIGN_KEY, leave_out_the_tenth)
    assert check(without, key=None).event_count == check(data).event_count - 1
    with pytest.raises(NotWhole, match="another key"):
        check(without)


@pytest.mark.parametrize("salt", ["", "another "])
def test_a_file_signed_by_somebody_else_is_found_by_the_pinned_key(salt: str) -> None:
    forged = sealed_log(key=FOREIGN_KEY, salt=salt).export()
    assert not check(forged, key=None).key_pinned
    with pytest.raises(NotWhole, match="another key"):
        check(forged)


def test_an_older_file_is_found_by_a_seal_known_from_elsewhere(log: SealedLog) -> None:
    newest = seal_hash(log.seals[-1])
    assert check(log.export(), seal=newest).seal_pinned
    assert check(log.export(), seal=seal_hash(log.seals[1])).seal_pinned
    older = log.export(end=log.seals[3])
    assert check(older).key_pinned
    with pytest.raises(NotWhole, match="not in the file"):
        check(older, seal=newest)


def test_it_runs_alone_where_nothing_of_ours_is(log: SealedLog, tmp_path: Path) -> None:
    (tmp_path / "whole").write_bytes(log.export())
    (tmp_path / "cut").write_bytes(log.export()[:-1])
    script = tmp_path / "verify.py"
    script.write_text(Path(verifier.__file__).read_text())
    assert len(script.read_text().splitlines()) <= 500

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        # -P and an empty path: only what is installed, and of that nothing of ours is asked for.
        return subprocess.run(
            [sys.executable, "-P", "-X", "importtime", str(script), *arguments],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            check=False,
        )

    whole = run("whole", "--json")
    assert (whole.returncode, json.loads(whole.stdout)["whole"]) == (0, True)
    assert "stretto_" not in whole.stderr
    told = run("whole").stdout
    assert "NOT PINNED" in told and KEY.public_bytes.hex() in told, "the key as `status` shows it"
    assert "NOT PINNED" not in run("whole", "--key", KEY.public_bytes.hex()).stdout
    cut = run("cut")
    assert (cut.returncode, "NOT WHOLE" in cut.stdout) == (1, True)
    assert run("missing").returncode == 2
    assert run("whole", "--key", "zz").returncode == 2
