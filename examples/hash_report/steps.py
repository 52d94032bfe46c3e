"""The four steps of the hash report, each a program: `python steps.py STEP`.

The inputs of the task come as one JSON object on standard input; what the step prints is its
result. A step knows nothing of Stretto: `echo '{"directory": "."}' | python steps.py list`.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import Any

from files import chunked, count_files, list_files

Inputs = dict[str, Any]
PACE_MS_MAX = 3_000


def list_step(inputs: Inputs) -> object:
    """List the files and spawn one `hash` task per chunk of them."""
    paths, complete = list_files(Path(inputs["directory"]))
    chunks = chunked(paths, inputs.get("chunk_count", 40))
    # To be able to watch: so long takes each chunk at least, for `watch_ms` in all.
    rounds = -(-len(chunks) // inputs.get("slot_count", 1)) or 1
    pace_ms = min(PACE_MS_MAX, inputs.get("watch_ms", 0) // rounds)
    spawned = [
        {
            "name": f"chunk-{number:04d}",
            "executor": "process",
            "arguments": {"argv": [sys.executable, __file__, "hash"]},
            "inputs": {
                "directory": inputs["directory"],
                "paths": {"from": "literal", "value": chunk},
                "pace_ms": pace_ms,
            },
            "timeouts": {"attempt": "5m", "heartbeat": "2s"},
            "retry": {"max_attempts": 10},
        }
        for number, chunk in enumerate(chunks)
    ]
    output = {"file_count": len(paths), "chunk_count": len(chunks), "complete": complete}
    return {"output": output, "spawn": spawned}


def hash_step(inputs: Inputs) -> object:
    """Hash and count the files of one chunk; it takes `pace_ms` at least."""
    started_s = time.monotonic()
    counted = count_files(Path(inputs["directory"]), inputs["paths"])
    rest_s = inputs.get("pace_ms", 0) / 1_000 - (time.monotonic() - started_s)
    if rest_s > 0:
        time.sleep(rest_s)
    return asdict(counted)


def report_step(inputs: Inputs) -> object:
    """Join what the chunks counted into one report."""
    chunks = inputs["chunks"]
    digests = [chunk["digest"] for chunk in chunks]
    return {
        "directory": inputs["directory"],
        "chunk_count": len(chunks),
        **{
            name: sum(chunk[name] for chunk in chunks)
            for name in ("file_count", "byte_count", "line_count", "unreadable_count")
        },
        "complete": inputs["listing"]["complete"],
        "digest": sha256("".join(digests).encode()).hexdigest(),
        "chunk_digests": [digest[:16] for digest in digests],
    }


def check_step(inputs: Inputs) -> object:
    """Check the report: nothing missing, and its first and last chunk count the same again."""
    report, listing = inputs["report"], inputs["listing"]
    directory = Path(inputs["directory"])
    problems = [
        f"{name}: {report[name]} reported, {listing[name]} listed"
        for name in ("file_count", "chunk_count")
        if report[name] != listing[name]
    ]
    chunks = chunked(list_files(directory)[0], inputs["chunk_count"])
    for number in sorted({0, len(chunks) - 1} if chunks else set()):
        if count_files(directory, chunks[number]).digest[:16] != report["chunk_digests"][number]:
            problems.append(f"chunk {number} has another digest now")
    if problems:
        raise SystemExit("the report does not hold: " + "; ".join(problems))
    return {name: value for name, value in report.items() if name != "chunk_digests"}


STEPS = {"list": list_step, "hash": hash_step, "report": report_step, "check": check_step}

if __name__ == "__main__":
    json.dump(STEPS[sys.argv[1]](json.load(sys.stdin)), sys.stdout)
