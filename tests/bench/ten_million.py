"""Ten million events, from an unsealed log to a verified file: does it hold at that size?

Run: `make verify-ten-million`, or `python -m tests.bench.ten_million [--events N]`. A log of that
many events is appended; a kernel starts on it, which seals all of it (as after an upgrade from a
version without seals); it is exported over gRPC to a file; the verifier's process checks the file,
and checks it again with one bit flipped, which it must find. Prints one JSON line and ends with
status 1 when any of that does not hold. Needs about 1 KB of disk for each event, and 350 bytes of
memory for each stream in the verifier. CPU seconds are those of the process named, on this machine.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter, process_time

from stretto.eventlog.v1 import event_log_service_pb2 as pb
from stretto_core.eventlog.postgres.log import PostgresLog
from stretto_core.ids import Partition
from stretto_verify import verify

from tests.bench.append import make_events, postgres
from tests.integration.kernel.serving import Served, served

SLICE_EVENTS = 20_000
CALL_EVENTS = 500
DEADLINE_S = 3_600.0


class Watch:
    """Collects what was measured, telling each part on stderr as it ends."""

    def __init__(self) -> None:
        self.figures: dict[str, float] = {}

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Measure what happens inside: wall time, CPU time of this process, of those that ended."""
        begin_s, begin_own_s, begin_cpu_s = perf_counter(), process_time(), _cpu_of_children_s()
        yield
        self.figures[f"{name}_s"] = round(perf_counter() - begin_s, 1)
        self.figures[f"{name}_own_cpu_s"] = round(process_time() - begin_own_s, 1)
        self.figures[f"{name}_children_cpu_s"] = round(_cpu_of_children_s() - begin_cpu_s, 1)
        _tell(f"{name}: {self.figures[f'{name}_s']} s")


def _cpu_of_children_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _tell(line: str) -> None:
    print(line, file=sys.stderr)  # noqa: T201 - progress


async def append(dsn: str, count: int) -> None:
    """Append so many events of one-task runs."""
    log = await PostgresLog.open(dsn, Partition("p0"))
    owned = await log.acquire()
    for begin in range(0, count, SLICE_EVENTS):
        events = make_events(min(SLICE_EVENTS, count - begin))
        for at in range(0, len(events), CALL_EVENTS):
            await owned.append(events[at : at + CALL_EVENTS])
    await owned.release()
    await log.close()


async def export(kernel: Served, path: Path) -> pb.ExportSummary:
    """Write the whole log to a file."""
    summary = pb.ExportSummary()
    with path.open("wb") as file:
        async for answer in kernel.events.Export(pb.ExportRequest(), timeout=DEADLINE_S):
            if answer.HasField("summary"):
                summary = answer.summary
            file.write(answer.content)
    return summary


def check(path: Path, key: bytes) -> dict[str, object]:
    """Return what the verifier, a process of its own, says of a file."""
    said = subprocess.run(
        [sys.executable, verify.__file__, str(path), "--key", key.hex(), "--json"],
        capture_output=True,
        text=True,
        check=False,
    )
    found: dict[str, object] = json.loads(said.stdout)
    return found


def flip(path: Path) -> None:
    """Flip a bit in the last tenth of a file."""
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(at := size - random.Random(size).randrange(size // 10))
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1]))


async def measure(count: int, path: Path) -> bool:
    """Do all of it and print what was found; return whether all of it held."""
    watch = Watch()
    async with postgres() as dsn:
        with watch.part("append"):
            await append(dsn, count)
        async with served(dsn) as kernel:
            sealer = kernel.kernel.partition.sealer
            with watch.part("seal"):
                await sealer.seal_now()
            with watch.part("export"):
                summary = await export(kernel, path)
            key = (await sealer.key()).public_bytes
    with watch.part("verify"):
        whole = check(path, key)
    verifier_rss_mb = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss >> 10
    flip(path)
    with watch.part("verify_flipped"):
        flipped = check(path, key)
    held = bool(whole["whole"]) and not flipped["whole"]
    held = held and whole.get("seal_hash") == summary.end_seal_hash.hex()
    shown = {
        **watch.figures,
        "event_count": whole.get("event_count"),
        "seal_count": whole.get("seal_count"),
        "file_bytes": path.stat().st_size,
        "export_events_per_s": round(count / watch.figures["export_s"]),
        "export_events_per_cpu_s": round(count / watch.figures["export_own_cpu_s"]),
        "verify_events_per_s": round(count / watch.figures["verify_s"]),
        "verify_events_per_cpu_s": round(count / watch.figures["verify_children_cpu_s"]),
        "verifier_rss_mb": verifier_rss_mb,
        "fault": whole.get("fault", ""),
        "flipped": flipped.get("fault"),
        "held": held,
    }
    print(json.dumps(shown))  # noqa: T201 - the figures are the purpose
    return held


def main() -> int:
    """Measure as many events as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=10_000_000)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="stretto-") as directory:
        held = asyncio.run(measure(asked.events, Path(directory) / "log.export"))
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
