"""The steps of the word count, each a program: inputs on standard input, the result printed.

A step knows nothing of Stretto: `echo '{"files": ["README.md"]}' | python words.py count`.
"""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from pathlib import Path
from typing import Any

WORD = re.compile(r"[a-z]{4,}")


def split(inputs: dict[str, Any]) -> object:
    """List the files; spawn one task for every few of them."""
    files = sorted(map(str, Path(inputs["directory"]).rglob(inputs["pattern"])))
    size = inputs["files_per_task"]
    pieces = [files[start : start + size] for start in range(0, len(files), size)]
    spawned = [
        {
            "name": f"count-{number:04d}",
            "executor": "process",
            "arguments": {"argv": ["python", __file__, "count"]},
            "inputs": {"files": piece},
        }
        for number, piece in enumerate(pieces)
    ]
    return {"output": len(files), "spawn": spawned}


def count(inputs: dict[str, Any]) -> object:
    """Count the words of some files; only the frequent ones are worth passing on."""
    words: Counter[str] = Counter()
    for file in inputs["files"]:
        words.update(WORD.findall(Path(file).read_text(errors="replace").lower()))
    return {"files": len(inputs["files"]), "words": dict(words.most_common(1_000))}


def join(inputs: dict[str, Any]) -> object:
    """Add the counts up."""
    words: Counter[str] = Counter()
    for each in inputs["counts"]:
        words.update(each["words"])
    return {
        "files": sum(each["files"] for each in inputs["counts"]),
        "words": dict(words.most_common(inputs["word_count"])),
    }


if __name__ == "__main__":
    step = {"split": split, "count": count, "join": join}[sys.argv[1]]
    json.dump(step(json.load(sys.stdin)), sys.stdout)
