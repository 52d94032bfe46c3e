"""The process executor with real processes: results, exits, limits, stops, groups."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from stretto.common.v1 import lease_pb2, payload_pb2
from stretto.run.v1 import plan_pb2
from stretto.tasklog.v1.task_log_pb2 import (
    LOG_STREAM_STDERR,
    LOG_STREAM_STDOUT,
    LogChunk,
    LogStream,
)
from stretto.work.v1 import work_pb2
from stretto.work.v1 import work_service_pb2 as wire
from stretto_core.clock.system import SystemClock
from stretto_core.errors import Refusal, Unavailable
from stretto_core.ids.system import SystemIds
from stretto_core.telemetry.secret import Secret
from stretto_sdk.arguments.secret_references import FindSecret
from stretto_sdk.blobs import Source, ref_of
from stretto_sdk.board_link import BoardLink
from stretto_sdk.worker.effects import (
    Ending,
    Failed,
    LeaseKey,
    Stop,
    StopKind,
    Stopped,
    Succeeded,
)
from stretto_sdk.worker.log_buffer import LogLimits
from stretto_sdk.worker.log_forwarder import LogForwarder, TaskLogWriter
from stretto_worker.processes.executor import ProcessExecutor, ProcessLimits
from stretto_worker.processes.reaper_client import ReaperClient
from stretto_worker.secret_store import SecretStore

from tests.integration.worker.conftest import environment
from tests.integration.worker.processes import is_alive, pids_in
from tests.waiting import until

KEY = LeaseKey("t", 3)
TOKEN = lease_pb2.LeaseToken(work_item=KEY.work_item, epoch=KEY.epoch)
LIMITS = LogLimits(attempt_bytes_full=256 * 1024, worker_bytes_full=1024 * 1024)
PASSWORD = "t0ken/with+odd characters"


class Reported:
    """Keeps what an executor reports."""

    def __init__(self, log: TaskLogWriter) -> None:
        self.endings: dict[LeaseKey, Ending] = {}
        self.log = log

    def ended(self, key: LeaseKey, ending: Ending) -> None:
        assert key not in self.endings, "a body ends once"
        self.endings[key] = ending

    def heartbeat(self, key: LeaseKey, details: payload_pb2.Payload) -> None:
        raise AssertionError("a process has no heartbeat of its own")

    def spawn(self, key: LeaseKey, request_id: str, tasks: tuple[plan_pb2.TaskSpec, ...]) -> None:
        raise AssertionError("a process spawns with its result only")

    @property
    def boards(self) -> BoardLink:
        raise AssertionError("this body reaches no blackboard")

    async def put_blob(self, key: LeaseKey, source: Source) -> payload_pb2.BlobRef:
        return ref_of(source)

    def task_log(self, key: LeaseKey) -> TaskLogWriter:
        return self.log


class Sink:
    """Takes what is forwarded; `down` is what it refuses with until that is None again."""

    def __init__(self) -> None:
        self.chunks: list[LogChunk] = []
        self.down: Refusal | None = None
        self.refused_count = 0

    async def append_logs(self, request: wire.AppendLogsRequest) -> wire.AppendLogsResponse:
        if self.down is not None:
            self.refused_count += 1
            raise self.down
        response = wire.AppendLogsResponse()
        for logs in request.leases:
            self.chunks.extend(logs.chunks)
            response.results.add()
        return response

    def content(self, stream: LogStream.ValueType) -> bytes:
        return b"".join(chunk.content for chunk in self.chunks if chunk.stream == stream)


class Bench:
    """An executor and what it reported."""

    def __init__(self, directory: Path, find_secret: FindSecret | None = None) -> None:
        self.directory = directory
        self.sink = Sink()
        self.forwarder = LogForwarder(self.sink, SystemClock(), LIMITS)
        self.reported = Reported(self.forwarder.open(TOKEN))
        self.reaper = ReaperClient({"PATH": environment()["PATH"], "INHERITED": "yes"})
        self.executor = ProcessExecutor(
            self.reaper,
            find_secret=find_secret or SecretStore(None, {"TOKEN": Secret(PASSWORD)}).find,
            clock=SystemClock(),
            ids=SystemIds(),
            limits=ProcessLimits(stop_grace_s=0.2, revoke_grace_s=0.1, pipe_drain_s=0.2),
        )
        self.executor.attach(self.reported)

    def begin(self, arguments: object, **inputs: payload_pb2.Payload) -> None:
        assignment = work_pb2.Assignment(
            token=TOKEN,
            run="namespaces/default/runs/r",
            task="part/one",
            activation=2,
            attempt=4,
            arguments_json=json.dumps(arguments),
            inputs=inputs,
        )
        self.executor.begin(assignment)

    async def end(self) -> Ending:
        await until(lambda: KEY in self.reported.endings)
        return self.reported.endings[KEY]

    async def run(self, arguments: object, **inputs: payload_pb2.Payload) -> Ending:
        self.begin(arguments, **inputs)
        return await self.end()

    async def python(self, code: str, **arguments: object) -> Ending:
        return await self.run({"argv": [sys.executable, "-c", code], **arguments})

    async def log(self, stream: LogStream.ValueType) -> bytes:
        """What it wrote there in all, once it has ended."""
        sent = asyncio.Event()
        self.forwarder.ended(self.reported.log.log, sent.set)
        await sent.wait()
        return self.sink.content(stream)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    made = Bench(tmp_path)
    yield made
    await made.executor.close()
    await made.forwarder.close()


def value(ending: Ending) -> object:
    assert isinstance(ending, Succeeded), ending
    return None if ending.result is None else json.loads(ending.result.json)


def failure(ending: Ending) -> tuple[str, bool, str]:
    assert isinstance(ending, Failed), ending
    return ending.failure.reason, ending.failure.retryable, ending.failure.message


async def test_inputs_reach_standard_input_and_json_comes_back(bench: Bench) -> None:
    one = payload_pb2.Payload(json='{"deep":[1]}')
    assert value(await bench.run({"argv": ["cat"]}, one=one)) == {"one": {"deep": [1]}}


async def test_placeholders_environment_and_directory(bench: Bench) -> None:
    script = 'echo "$1|$2|$3|$GIVEN|$INHERITED|$PWD|$STRETTO_RUN|$STRETTO_TASK|'
    script += '$STRETTO_ATTEMPT|$STRETTO_EPOCH|$STRETTO_IDEMPOTENCY_KEY"'
    ending = await bench.run(
        {
            "argv": ["sh", "-c", script, "sh", "<${inputs.name}>", "${inputs.list}", "$${x}"],
            "env": {"GIVEN": "${inputs.name}!"},
            "cwd": "/",
            "stdin": "none",
            "output": "text",
        },
        name=payload_pb2.Payload(json='"Ann"'),
        list=payload_pb2.Payload(json="[1, 2]"),
    )
    run = "namespaces/default/runs/r"
    expected = f"<Ann>|[1,2]|${{x}}|Ann!|yes|/|{run}|part/one|4|3|{run}/tasks/part/one@2\n"
    assert value(ending) == expected


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({}, "argv: is required"),
        ({"argv": ["true"], "cwdd": "/"}, 'did you mean "cwd"?'),
        ({"argv": ["echo", "${inputs.nam}"]}, "is no input of this task"),
        ({"argv": ["true"], "stdin": "all"}, "stdin: must be"),
        ({"argv": ["true"], "output": "xml"}, "output"),
        ({"argv": ["true"], "env": {"STRETTO_RUN": "x"}}, "cannot set"),
        ({"argv": ["true", "\0"]}, "NUL"),
    ],
)
async def test_wrong_arguments_fail_for_good(bench: Bench, arguments: object, says: str) -> None:
    reason, retryable, message = failure(await bench.run(arguments))
    assert (reason, retryable) == ("INVALID_ARGUMENTS", False)
    assert says in message


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"argv": ["no-such-program-here"]}, "no-such-program-here: No such file"),
        ({"argv": ["/etc/passwd"]}, "Permission denied"),
        ({"argv": ["true"], "cwd": "/no/such/place"}, "/no/such/place: No such file"),
    ],
)
async def test_what_cannot_be_run_fails_for_good(
    bench: Bench, arguments: object, says: str
) -> None:
    reason, retryable, message = failure(await bench.run(arguments))
    assert (reason, retryable) == ("PROGRAM_NOT_RUNNABLE", False)
    assert says in message


async def test_a_program_that_is_nowhere_is_not_a_matter_of_permission(
    bench: Bench, tmp_path: Path
) -> None:
    """A directory of PATH that this account may not enter, say; here one of the program's name."""
    (tmp_path / "no-such-program-here").mkdir()
    path = f"{tmp_path}:{environment()['PATH']}"
    ending = await bench.run({"argv": ["no-such-program-here"], "env": {"PATH": path}})
    assert failure(ending)[2] == "no-such-program-here: No such file or directory"


@pytest.mark.parametrize(
    ("code", "codes", "retryable"),
    [
        (3, {}, True),
        (3, {"final_exit_codes": [3]}, False),
        (3, {"retryable_exit_codes": [4]}, False),
        (4, {"retryable_exit_codes": [4]}, True),
    ],
)
async def test_exit_codes(
    bench: Bench, code: int, codes: dict[str, object], retryable: bool
) -> None:
    script = f"echo out; echo why >&2; exit {code}"
    ending = await bench.run({"argv": ["sh", "-c", script], **codes})
    assert failure(ending) == ("EXIT_STATUS", retryable, f"sh: exit status {code}: why")
    assert isinstance(ending, Failed)
    details = json.loads(ending.failure.details.json)
    assert details == {"exit_code": code, "stderr_tail": "why"}
    assert await bench.log(LOG_STREAM_STDOUT) == b"out\n"
    assert await bench.log(LOG_STREAM_STDERR) == b"why\n"


async def test_a_signal_that_nobody_asked_for(bench: Bench) -> None:
    reason, retryable, message = failure(await bench.run({"argv": ["sh", "-c", "kill -9 $$"]}))
    assert (reason, retryable) == ("EXIT_SIGNAL", True)
    assert message == "sh: ended by SIGKILL"


async def test_output_that_is_no_json_and_no_text(bench: Bench) -> None:
    assert failure(await bench.run({"argv": ["echo", "{"]}))[0] == "INVALID_OUTPUT"


async def test_output_that_is_not_utf8(bench: Bench) -> None:
    ending = await bench.run({"argv": ["printf", r"\377"], "output": "text"})
    assert failure(ending)[0] == "INVALID_OUTPUT"


async def test_nothing_printed_is_null(bench: Bench) -> None:
    assert value(await bench.run({"argv": ["true"]})) is None


async def test_endless_output_is_cut_off_and_the_process_with_it(bench: Bench) -> None:
    reason, retryable, _ = failure(await bench.run({"argv": ["yes"]}))
    assert (reason, retryable) == ("OUTPUT_TOO_LARGE", False)


async def test_huge_standard_error_is_no_failure(bench: Bench) -> None:
    code = "import sys; sys.stderr.write('x' * 5_000_000); print(1)"
    assert value(await bench.python(code)) == 1
    assert await bench.log(LOG_STREAM_STDERR) == b"x" * 5_000_000


async def test_output_that_is_only_logged_has_no_limit_and_no_form(bench: Bench) -> None:
    code = "import sys; sys.stdout.buffer.write(b'\\xff' * 10_000_000)"
    assert value(await bench.python(code, output="none")) is None
    assert await bench.log(LOG_STREAM_STDOUT) == b"\xff" * 10_000_000


async def test_a_log_that_is_not_taken_costs_lines_and_no_work(bench: Bench) -> None:
    bench.sink.down = Unavailable("no store", reason="STORE_DOWN")
    code = "print('x' * 9_999_999)"
    assert value(await bench.python(code, output="none")) is None
    assert bench.sink.refused_count
    bench.sink.down = None
    await until(lambda: any(chunk.dropped_bytes for chunk in bench.sink.chunks))
    kept = len(await bench.log(LOG_STREAM_STDOUT))
    dropped = sum(chunk.dropped_bytes for chunk in bench.sink.chunks)
    assert dropped and kept + dropped == 10_000_000


async def test_a_result_may_be_larger_than_a_payload(bench: Bench) -> None:
    code = "print('\"' + 'x' * 700_000 + '\"')"
    assert value(await bench.python(code)) == "x" * 700_000


async def test_a_process_spawns_by_printing(bench: Bench) -> None:
    printed = {"output": 5, "spawn": [{"name": "c", "executor": "process", "arguments": {}}]}
    ending = await bench.run({"argv": ["echo", json.dumps(printed)], "spawn": True})
    assert value(ending) == 5
    assert isinstance(ending, Succeeded)
    assert [task.name for task in ending.spawned] == ["c"]


@pytest.mark.parametrize("printed", [{"outptu": 1}, {"spawn": [{"nam": "c"}]}, 5])
async def test_a_wrong_spawn_fails(bench: Bench, printed: object) -> None:
    ending = await bench.run({"argv": ["echo", json.dumps(printed)], "spawn": True})
    assert failure(ending)[:2] == ("INVALID_OUTPUT", False)


@pytest.mark.parametrize("kind", list(StopKind))
async def test_a_stop_ends_the_whole_group_also_when_it_will_not(
    bench: Bench, kind: StopKind
) -> None:
    pids = bench.directory / "pids"
    # Both ignore SIGTERM; the grandchild stands for whatever a command starts.
    script = f"trap '' TERM; sleep 600 & echo $$ $! >> {pids}; wait; sleep 600"
    bench.begin({"argv": ["sh", "-c", script]})
    await until(lambda: len(pids_in(pids)) == 2)
    bench.executor.stop(Stop(KEY, kind, "test"))
    assert await bench.end() == Stopped()
    await until(lambda: not any(is_alive(pid) for pid in pids_in(pids)))


async def test_a_process_may_clean_up_when_it_is_asked_to_stop(bench: Bench) -> None:
    ready, cleaned = bench.directory / "ready", bench.directory / "cleaned"
    script = f"trap 'touch {cleaned}; exit 0' TERM; touch {ready}; while :; do sleep 0.01; done"
    bench.begin({"argv": ["sh", "-c", script]})
    await until(ready.exists)
    bench.executor.stop(Stop(KEY, StopKind.CANCEL, "test", SystemClock().now_ns() + 10**10))
    assert await bench.end() == Stopped()
    assert cleaned.exists()


async def test_a_stop_before_the_command_began_starts_nothing(bench: Bench) -> None:
    made = bench.directory / "made"
    bench.begin({"argv": ["touch", str(made)], "output": "none"})
    bench.executor.stop(Stop(KEY, StopKind.CANCEL, "", None))
    assert await bench.end() == Stopped()
    assert not made.exists()


async def test_a_stop_while_artifacts_are_stored_is_no_success(bench: Bench) -> None:
    storing, go_on = asyncio.Event(), asyncio.Event()

    async def put_blob(key: LeaseKey, source: Source) -> payload_pb2.BlobRef:
        storing.set()
        await go_on.wait()
        return ref_of(source)

    bench.reported.put_blob = put_blob  # type: ignore[method-assign]
    (bench.directory / "a.log").touch()
    bench.begin({"argv": ["true"], "cwd": str(bench.directory), "artifacts": ["a.log"]})
    await storing.wait()
    bench.executor.stop(Stop(KEY, StopKind.CANCEL, "", None))
    go_on.set()
    assert await bench.end() == Stopped()


async def test_a_grandchild_left_behind_ends_with_its_parent(bench: Bench) -> None:
    pids = bench.directory / "pids"
    assert value(await bench.run({"argv": ["sh", "-c", f"sleep 600 & echo $! > {pids}; echo 1"]}))
    await until(lambda: not any(is_alive(pid) for pid in pids_in(pids)))


async def test_a_pipe_that_an_escaped_grandchild_holds_is_not_waited_for(bench: Bench) -> None:
    pids = bench.directory / "pids"
    code = "import os,time\nif os.fork() == 0:\n os.setsid()\n"
    code += f" open({str(pids)!r}, 'w').write(str(os.getpid()))\n time.sleep(600)\n"
    code += f"while not os.path.exists({str(pids)!r}): pass\nprint(7)"
    assert value(await bench.python(code)) == 7
    await until(lambda: bool(pids_in(pids)))
    await bench.executor.close()
    await until(lambda: not any(is_alive(pid) for pid in pids_in(pids)))


async def test_a_killed_reaper_fails_its_bodies_kills_them_and_is_replaced(bench: Bench) -> None:
    pids = bench.directory / "pids"
    bench.begin({"argv": ["sh", "-c", f"sleep 600 & echo $$ $! > {pids}; wait"]})
    await until(lambda: len(pids_in(pids)) == 2)
    assert bench.reaper.reaper_pid is not None
    os.kill(bench.reaper.reaper_pid, 9)
    assert failure(await bench.end())[:2] == ("REAPER_GONE", True)
    await until(lambda: not any(is_alive(pid) for pid in pids_in(pids)))
    bench.reported.endings.clear()
    assert value(await bench.run({"argv": ["echo", "2"]})) == 2


async def test_an_attempt_has_an_end_when_it_is_the_worker_that_fails(tmp_path: Path) -> None:
    def broken(name: str) -> Secret:
        raise RuntimeError("text that nobody may see")

    bench = Bench(tmp_path, find_secret=broken)
    try:
        ending = await bench.run({"argv": ["true"], "env": {"A": {"secret": "TOKEN"}}})
    finally:
        await bench.executor.close()
    assert failure(ending) == ("INTERNAL", False, "the worker failed: RuntimeError")


async def test_any_number_of_commands_starts_at_once(bench: Bench) -> None:
    # More requests and answers than the socket holds, none of them read in between; and more
    # descriptors than `select` knows.
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 4_096)), hard))
    null = os.open(os.devnull, os.O_RDWR)
    taken = [os.dup(null) for _ in range(1_024)]
    try:
        ends = [
            bench.reaper.start(["/nowhere"], env={}, cwd="", standard=(null, null, null))[1]
            for _ in range(800)
        ]
    finally:
        for descriptor in (null, *taken):
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert len(await asyncio.gather(*ends)) == 800


async def test_a_command_finds_no_secret_of_the_worker_in_its_parent(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STRETTO_TOKEN", "the-token")
    script = "tr '\\0' '\\n' </proc/$PPID/environ"
    listed = value(await bench.run({"argv": ["sh", "-c", script], "output": "text"}))
    assert isinstance(listed, str)
    assert "INHERITED=yes" in listed
    assert "the-token" not in listed


async def test_a_command_inherits_no_descriptor_but_the_standard_three(bench: Bench) -> None:
    listed = value(await bench.run({"argv": ["ls", "/proc/self/fd"], "output": "text"}))
    assert isinstance(listed, str)
    # `ls` itself holds the directory open.
    assert len(listed.split()) == 4, listed


async def test_a_secret_of_its_environment_is_there_and_kept_out_of_all_it_writes(
    bench: Bench,
) -> None:
    code = (
        "from os import environ; import sys, json, urllib.parse\n"
        "token = environ['TOKEN']\n"
        "for character in token:\n"
        "    print(character, end='', file=sys.stderr, flush=True)\n"
        "print(json.dumps([len(token), token, urllib.parse.quote_plus(token)]))\n"
        "sys.exit(int(environ['STATUS']))"
    )
    env = {"TOKEN": {"secret": "TOKEN", "prefix": "Bearer "}, "STATUS": "0"}
    size = len("Bearer " + PASSWORD)
    assert value(await bench.python(code, env=env)) == [size, "Bearer [secret]", "Bearer+[secret]"]
    bench.reported.endings.clear()
    ended = await bench.python(code, env={**env, "STATUS": "3"})
    assert isinstance(ended, Failed)
    assert "Bearer [secret]" in ended.failure.message
    assert PASSWORD not in str(ended)
    assert await bench.log(LOG_STREAM_STDERR) == b"Bearer [secret]" * 2
    assert PASSWORD.encode() not in bench.sink.content(LOG_STREAM_STDOUT)


async def test_a_secret_that_is_missing_fails_for_good_and_starts_nothing(bench: Bench) -> None:
    ended = await bench.python("print(1)", env={"X": {"secret": "NOBODYS"}})
    assert failure(ended) == ("SECRET_MISSING", False, "this worker has no secret named 'NOBODYS'")
    assert not bench.sink.chunks
