"""What other services hear of a suite: its bus, while servers are killed and wiped."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sys
import sysconfig
from contextlib import suppress
from pathlib import Path

import nats
from nats.js.errors import Error as JetStreamError
from stretto.eventlog.v1.recorded_event_pb2 import RecordedEvent
from stretto.eventlog.v1.relayed_events_pb2 import RelayedEvents
from stretto_core.bus.jetstream import STREAM

from tests.e2e.conftest import ROOT, Suite, command, json_of, until_true
from tests.jetstream import wipe
from tests.waiting import until

PLAN = {"tasks": [{"name": "a", "executor": "sleep", "arguments": {"duration": "0s"}}]}


def bus_url(suite: Suite) -> str:
    """Return the URL as docs/settings.md says how to put it together."""
    directory = suite.directory.nats_path
    listen = re.search(r'listen: "([^"]+)"', (directory / "nats.conf").read_text())
    assert listen is not None
    return f"nats://{(directory / 'token').read_text()}@{listen.group(1)}"


async def heard(url: str, run_id: str) -> list[str]:
    """Return the types of the run's events that JetStream holds, in their order."""
    types: dict[int, str] = {}
    client = await nats.connect(url)
    try:
        stream = client.jetstream()
        state = (await stream.stream_info(STREAM)).state
        for sequence in range(state.first_seq, state.last_seq + 1):
            message = await stream.get_msg(STREAM, sequence)
            assert message.data is not None
            if message.subject != f"stretto.default.run.{run_id}":
                continue
            for event in RelayedEvents.FromString(message.data).events:
                recorded = RecordedEvent.FromString(event.stored_bytes)
                types[recorded.version] = recorded.type.rpartition(".")[2]
    finally:
        await client.close()
    return list(types.values())


def run_one(suite: Suite) -> str:
    ran = suite.stretto("run", "-", "--json", stdin=json.dumps(PLAN))
    assert ran.returncode == 0, ran.stderr
    run_id: str = json.loads(ran.stdout)["run_id"]
    return run_id


async def is_heard(suite: Suite, run_id: str) -> bool:
    with suppress(JetStreamError, OSError, nats.errors.Error):
        types = await heard(bus_url(suite), run_id)
        return types == ["RunStarted", "AttemptLeased", "AttemptSucceeded", "RunSucceeded"]
    return False


async def test_a_run_is_heard_of_and_so_is_the_next_after_all_of_nats_was_lost(
    suite: Suite,
) -> None:
    first = run_one(suite)
    await until_true(lambda: is_heard(suite, first))
    pid = suite.pid("nats")
    assert pid is not None
    restarts = suite.restarts("nats")
    shutil.rmtree(suite.directory.nats_path / "store")
    os.kill(pid, signal.SIGKILL)
    second = run_one(suite)
    await until(lambda: suite.restarts("nats") > restarts)
    await until_true(lambda: is_heard(suite, second))


async def test_what_the_bus_lost_is_relayed_again_from_the_first_event(suite: Suite) -> None:
    runs = [run_one(suite) for _ in range(2)]
    for run in runs:
        await until_true(lambda: is_heard(suite, run))  # noqa: B023
    await wipe(bus_url(suite))
    moved = suite.stretto("relay", "--from", "start")
    assert moved.returncode == 0, moved.stderr
    for run in runs:
        await until_true(lambda: is_heard(suite, run))  # noqa: B023

    async def has_caught_up() -> bool:
        standing = json_of(suite.stretto("relay", "--json"))
        return bool(standing["position"] == standing["log_position"])

    await until_true(has_caught_up)
    told = json_of(suite.stretto("status", "--json"))["relay"]
    assert told["behind"] == 0 and told["stopped"] == ""
    beyond = suite.stretto("relay", "--from", 10**9)
    assert beyond.returncode == 2 and "the log ends at" in beyond.stderr
    assert suite.stretto("relay", "--from", "yesterday").returncode == 2


PROTOS = [
    "common/v1/principal.proto",
    "eventlog/v1/recorded_event.proto",
    "eventlog/v1/relayed_events.proto",
]


async def test_a_reader_needs_a_nats_client_and_the_contracts_only(
    suite: Suite, tmp_path: Path
) -> None:
    files = [str(ROOT / "proto" / "stretto" / each) for each in PROTOS]
    made = ["-m", "grpc_tools.protoc", "-I", str(ROOT / "proto"), f"--python_out={tmp_path}"]
    command(sys.executable, *made, *files, environ=dict(os.environ)).check_returncode()
    run = run_one(suite)
    await until_true(lambda: is_heard(suite, run))
    # Without site packages of the project: -S reads no .pth file of an editable install.
    alone = {"PYTHONPATH": f"{tmp_path}:{sysconfig.get_path('purelib')}", "PATH": "/usr/bin"}
    reader = ROOT / "examples" / "bus" / "read_events.py"
    seen: list[str] = []
    while not any(run in line and line.endswith("RunSucceeded") for line in seen):
        read = command(sys.executable, "-S", reader, bus_url(suite), 4, environ=alone)
        assert read.returncode == 0, read.stderr
        seen += read.stdout.splitlines()
    of_run = [line.split()[2:] for line in seen if run in line]
    assert [version for version, _ in of_run] == ["1", "2", "3", "4"]
