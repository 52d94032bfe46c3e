"""The record of a real suite, exported and proven, against whoever changes what was exported."""

from __future__ import annotations

import base64
import io
import json
import os
import pty
import random
import signal
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest
from stretto.eventlog.v1.recorded_event_pb2 import RecordedEvent
from stretto_cli.exits import ExitStatus
from stretto_core.eventlog.seals import SEALED_TYPE, SealKey
from stretto_core.localstack.postgres import EmbeddedPostgres
from stretto_verify.verify import NotWhole, Report, verify

from tests.e2e.conftest import BIN, Suite, command, fresh_suites, json_of
from tests.unit.audit.attacks import ATTACKS, events_of, forged

ATTACKS_PER_KIND = 130  # Of eight kinds: over a thousand.
FOREIGN_KEY = SealKey(bytes(range(32)))
HELLO: dict[str, Any] = {
    "tasks": [{"name": "hello", "executor": "process", "arguments": {"argv": ["true"]}}],
}
FAILING: dict[str, Any] = {
    "tasks": [
        {
            "name": "broken",
            "executor": "process",
            "arguments": {"argv": ["false"]},
            "retry": {"max_attempts": 2, "initial_interval": "0.01s"},
        }
    ]
}


@pytest.fixture(scope="module")
def suite() -> Iterator[Suite]:
    """A suite that seals often, with runs, retries and settings of queues in its log."""
    for suite in fresh_suites():
        suite.environ["STRETTO_SEAL_EVENTS_MAX"] = "20"
        suite.up("--workers", 1, "--slots", 4)
        for _ in range(8):
            assert suite.stretto("run", "-", stdin=json.dumps(HELLO)).returncode == 0
        for limit in ("3", "none"):
            assert suite.stretto("queue", "set", "gpu", "--concurrency", limit).returncode == 0
        failed = json.loads(suite.stretto("run", "-", "--json", stdin=json.dumps(FAILING)).stdout)
        assert failed["state"] == "FAILED"
        assert suite.stretto("retry", failed["run_id"]).returncode == ExitStatus.FAILED, "again"
        acme = ("--namespace", "acme")
        assert suite.stretto("run", "-", *acme, stdin=json.dumps(HELLO)).returncode == 0
        yield suite


@pytest.fixture(scope="module")
def key(suite: Suite) -> bytes:
    """The public key, as it is told from elsewhere."""
    seal = json_of(suite.stretto("status", "--json"))["seal"]
    return bytes.fromhex(seal["public_key"])


@pytest.fixture(scope="module")
def exported(suite: Suite, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole export of it."""
    path = tmp_path_factory.mktemp("export") / "whole.export"
    export(suite, path)
    return path


def export(suite: Suite, path: Path, *arguments: str) -> dict[str, Any]:
    made: dict[str, Any] = json_of(suite.stretto("export", "-o", path, "--json", *arguments))
    return made


def checked(data: bytes, key: bytes | None, seal: bytes | None = None) -> Report:
    return verify(io.BytesIO(data), key=key, seal=seal)


def run_verifier(suite: Suite, *arguments: object) -> subprocess.CompletedProcess[str]:
    return command(BIN / "stretto-verify", *arguments, environ=suite.environ)


def test_the_record_is_whole_and_everything_in_it_says_who_did_it_and_why(
    suite: Suite, exported: Path, key: bytes
) -> None:
    report = json_of(run_verifier(suite, exported, "--key", key.hex(), "--json"))
    assert report["whole"] and report["key_pinned"] and report["seal_count"] > 2
    assert "NOT PINNED" in run_verifier(suite, exported).stdout
    recorded = [
        RecordedEvent.FromString(each.stored_bytes) for each in events_of(data_of(exported))
    ]
    types = {each.type.rpartition(".")[2] for each in recorded}
    assert types >= {"RunStarted", "AttemptFailed", "RunRetried", "ConcurrencyLimitChanged"}
    for each in recorded:
        assert each.principal.name, each
        assert each.request_id or each.causation_id, each
    causes = {each.event_id for each in recorded}
    assert causes >= {each.causation_id for each in recorded if each.causation_id}


def data_of(exported: Path) -> bytes:
    return exported.read_bytes()


@pytest.mark.parametrize("kind", sorted(ATTACKS))
def test_every_change_of_the_file_is_found(exported: Path, key: bytes, kind: str) -> None:
    data = data_of(exported)
    other = [
        each.stored_bytes for each in events_of(forged(data, FOREIGN_KEY, rename_the_principal))
    ]
    chance = random.Random(kind)
    for number in range(ATTACKS_PER_KIND):
        changed = ATTACKS[kind](data, chance, other)
        if changed == data:
            continue
        for pinned in (key, None):
            with pytest.raises(NotWhole):
                checked(changed, pinned)
                pytest.fail(f"{kind} {number} was not found")


def rename_the_principal(_: int, recorded: RecordedEvent) -> bool:
    recorded.principal.name = "nobody"
    return True


def test_a_history_signed_anew_with_another_key_is_found_by_the_key(
    exported: Path, key: bytes
) -> None:
    data = data_of(exported)
    places = [
        index
        for index, event in enumerate(events_of(data))
        if RecordedEvent.FromString(event.stored_bytes).type != SEALED_TYPE
    ]
    for place in random.Random(1).sample(places, 20):
        without = forged(data, FOREIGN_KEY, partial(differs, place))
        assert checked(without, None).event_count == checked(data, None).event_count - 1
        with pytest.raises(NotWhole, match="another key"):
            checked(without, key)


def differs(place: int, index: int, _: RecordedEvent) -> bool:
    return index != place


def test_exports_follow_one_another(suite: Suite, tmp_path: Path, key: bytes) -> None:
    first = export(suite, tmp_path / "first")
    assert suite.stretto("run", "-", stdin=json.dumps(HELLO)).returncode == 0
    second = export(suite, tmp_path / "second", "--since", first["cursor"])
    assert second["after_position"] == first["position"]
    asked = ("--key", key.hex(), "--seal", first["seal_hash"], "--json")
    assert json_of(run_verifier(suite, tmp_path / "second", *asked))["seal_pinned"]
    third = export(suite, tmp_path / "third")
    report = checked((tmp_path / "third").read_bytes(), key, bytes.fromhex(second["seal_hash"]))
    assert report.position == third["position"] == second["position"]
    status = json_of(suite.stretto("status", "--json"))["seal"]
    assert (status["position"], status["seal_hash"]) == (third["position"], third["seal_hash"])
    assert status["unsealed_event_count"] == 1, "only the seal itself"
    assert first["seal_hash"] != second["seal_hash"]
    beyond = base64.urlsafe_b64encode(b"cursor\np0=999999999").decode()
    refused = suite.stretto("export", "--since", beyond, "-o", tmp_path / "none")
    assert refused.returncode == ExitStatus.USAGE and "restored" in refused.stderr
    assert suite.stretto("export", "--since", "mine", "-o", tmp_path / "none").returncode == 2
    assert not (tmp_path / "none").exists()


def test_of_other_namespaces_a_file_holds_hashes_only(
    suite: Suite, tmp_path: Path, key: bytes
) -> None:
    export(suite, tmp_path / "acme", "--namespace", "acme")
    data = (tmp_path / "acme").read_bytes()
    report = checked(data, key)
    assert report.namespace == "acme" and report.omitted_count > 40
    given = [each for each in events_of(data) if each.HasField("stored_bytes")]
    namespaces = {RecordedEvent.FromString(each.stored_bytes).namespace for each in given}
    assert namespaces == {"acme", "stretto-audit"}
    facts = suite.stretto("events", "--namespace", "stretto-audit", "--json").stdout
    types = {json.loads(line)["type"] for line in facts.splitlines()}
    assert types == {"stretto.eventlog.v1.LogSealed"}, "of one namespace, and of no other"
    none = suite.stretto("events", "--namespace", "nobody", "--json")
    assert not none.stdout and "no event of the namespace nobody" in none.stderr
    nobodys = suite.stretto("export", "--namespace", "nobody", "-o", tmp_path / "nobody")
    assert nobodys.returncode == ExitStatus.USAGE and "check its name" in nobodys.stderr
    assert not (tmp_path / "nobody").exists()


def test_a_proof_is_of_one_event(suite: Suite, tmp_path: Path, key: bytes) -> None:
    path = tmp_path / "proof"
    shown = json_of(suite.stretto("proof", "last", "1", "-o", path, "--json"))
    assert base64.b64decode(shown["proof"]) == path.read_bytes()
    assert shown["type"] == "stretto.run.v1.RunStarted"
    checked_by = run_verifier(suite, path, "--key", key.hex())
    assert checked_by.returncode == 0 and "RunStarted at position" in checked_by.stdout
    assert suite.stretto("proof", shown["position"], "-o", path).returncode == 0
    assert run_verifier(suite, path, "--json").returncode == 0
    assert suite.stretto("proof", "p0-queues", "1", "-o", path).returncode == 0
    data = path.read_bytes()
    chance = random.Random(3)
    for _ in range(200):
        at = chance.randrange(len(data))
        changed = data[:at] + bytes([data[at] ^ (1 << chance.randrange(8))]) + data[at + 1 :]
        path.write_bytes(changed)
        with pytest.raises(NotWhole):
            verify_any(changed, key)
    assert run_verifier(suite, path, "--key", key.hex()).returncode == 1
    absent = suite.stretto("proof", "last", "99", "-o", path)
    assert "has no version 99" in absent.stderr
    for wrong in (("last", "99"), ("999999999",), ("p0-nothing", "1"), ("last",), ("last", "0")):
        assert suite.stretto("proof", *wrong, "-o", path).returncode == ExitStatus.USAGE


def verify_any(data: bytes, key: bytes) -> None:
    from stretto_verify.verify import MAGIC, PROOF_MAGIC, verify_proof  # noqa: PLC0415

    if data[: len(MAGIC)] == PROOF_MAGIC:
        verify_proof(data[len(MAGIC) :], key=key)
    else:
        checked(data, key)


def test_bytes_are_not_written_to_a_terminal(suite: Suite) -> None:
    for arguments in (("export",), ("proof", "last", "1")):
        ours, theirs = pty.openpty()
        asked = subprocess.run(
            [BIN / "stretto", *arguments],
            env=suite.environ,
            stdout=theirs,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
        os.close(theirs)
        os.close(ours)
        assert asked.returncode == ExitStatus.USAGE
        assert "redirect" in asked.stderr
    assert suite.stretto("export", "--json").returncode == ExitStatus.USAGE


def test_a_pipe_gets_the_file(suite: Suite, key: bytes) -> None:
    with subprocess.Popen(
        [BIN / "stretto", "export"], env=suite.environ, stdout=subprocess.PIPE
    ) as exporting:
        verified = subprocess.run(
            [BIN / "stretto-verify", "-", "--key", key.hex(), "--json"],
            stdin=exporting.stdout,
            capture_output=True,
            text=True,
            check=False,
        )
    assert exporting.returncode == 0
    assert json.loads(verified.stdout)["whole"]


def test_exports_are_whole_while_writes_go_on_and_after_the_kernel_died(
    suite: Suite, tmp_path: Path, key: bytes
) -> None:
    seal: bytes | None = None
    with ThreadPoolExecutor(1) as pool:
        for number in range(4):
            writing = pool.submit(suite.stretto, "run", "-", "--no-wait", stdin=json.dumps(HELLO))
            path = tmp_path / str(number)
            if number % 2:
                suite.signal("kernel", signal.SIGKILL)
            made = suite.stretto("export", "-o", path, "--json")
            assert writing.result().returncode == 0
            if made.returncode == ExitStatus.UNREACHABLE:
                assert not path.exists(), "a part of a file is none"
                continue
            assert made.returncode == 0, made.stderr
            report = checked(path.read_bytes(), key, seal)
            seal = bytes.fromhex(report.seal_hash)
    # More where a start met the session of the one before, which the server had not ended yet.
    assert suite.restarts("kernel") >= 2
    export(suite, tmp_path / "last")
    assert checked((tmp_path / "last").read_bytes(), key, seal)
    assert json_of(suite.stretto("views", "--json"))["views"], "seals stop no view"
    assert suite.stretto("status").returncode == 0


def test_the_private_key_is_nowhere_but_in_its_table(suite: Suite, exported: Path) -> None:
    dsn = EmbeddedPostgres(directory=suite.directory.postgres_path).dsn()
    with psycopg.connect(dsn) as connection:
        rows = connection.execute("SELECT secret FROM stretto.keys WHERE purpose = 'seal'")
        ((secret,),) = rows.fetchall()
    assert len(secret) == 32
    written = [exported, *suite.directory.root.glob("logs/*")]
    assert len(written) > 1
    for path in written:
        content = path.read_bytes()
        assert secret not in content and secret.hex().encode() not in content
