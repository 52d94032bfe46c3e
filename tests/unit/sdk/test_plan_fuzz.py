"""Whatever a plan file holds, reading it ends in a run or in mistakes with places, never a bug."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest
from stretto_sdk.plan_files.mistakes import PlanRefused
from stretto_sdk.plan_files.read import read_plan_text
from stretto_sdk.plan_form import RunForm

ROOT = Path(__file__).parents[3]
SEEDS = [
    path.read_text()
    for pattern in ("*/plan.yaml", "*/plan.json", "disk_report/parts/*.yaml")
    for path in sorted((ROOT / "examples").glob(pattern))
]
PIECES = [
    *"{}[]:,-?&*!|>'\"%@`#~\t\n\r\x00\x85\ufeff\u2028\ud800é",
    "${params.who}",
    "${params.",
    "&a ",
    "*a",
    "<<: *a\n",
    "!!str ",
    "!x ",
    "---\n",
    "...\n",
    "- ",
    "  ",
    ": ",
    "null",
    "true",
    "1e999",
    ".nan",
    "NaN",
    "9" * 5_000,
    "[" * 120,
    "{a: " * 120,
    '"\\ud800"',
    "include: [{file: x.yaml}]\n",
    "parameters: {a: {type: list, default: [1]}}\n",
    "tasks:\n",
]


def read(text: str, directory: Path) -> RunForm | PlanRefused:
    try:
        return read_plan_text(text, source="fuzz", directory=directory)
    except PlanRefused as refused:
        assert refused.mistakes
        lines = text.count("\n") + text.count("\r") + text.count("\x85") + text.count("\u2028") + 2
        assert all(0 <= each.line <= lines and each.column >= 0 for each in refused.mistakes)
        assert all(each.line or each.field.startswith("--set") for each in refused.mistakes)
        assert str(refused).encode("utf-8", "replace")
        return refused


@pytest.mark.parametrize("seed", range(30))
def test_a_mangled_plan_is_read_or_refused(seed: int, tmp_path: Path) -> None:
    draws = random.Random(seed)
    for _ in range(60):
        text = draws.choice(SEEDS)
        for _ in range(draws.randrange(1, 6)):
            at = draws.randrange(len(text) + 1)
            match draws.randrange(4):
                case 0:
                    text = text[:at] + draws.choice(PIECES) + text[at:]
                case 1:
                    text = text[:at] + text[at + draws.randrange(1, 30) :]
                case 2:
                    line = draws.choice(text.splitlines(keepends=True) or [""])
                    text = text[:at] + line + text[at:]
                case _:
                    text = text[:at] + draws.choice(PIECES) * draws.randrange(1, 4) + text[at + 1 :]
        read(text, tmp_path)


@pytest.mark.parametrize("seed", range(10))
def test_bytes_without_sense_are_refused(seed: int, tmp_path: Path) -> None:
    draws = random.Random(seed)
    for _ in range(100):
        raw = draws.randbytes(draws.randrange(1, 60))
        try:
            read_plan_text(raw, source="fuzz", directory=tmp_path)
        except PlanRefused as refused:
            assert refused.mistakes


def test_yaml_is_loaded_for_a_yaml_file_only() -> None:
    program = (
        "import sys; from stretto_sdk.plan_files.read import read_plan_text as read; "
        'read(\'{"tasks": [{"name": "a", "executor": "acme.do"}]}\', source="x"); '
        "assert 'yaml' not in sys.modules; "
        'read("tasks: [{name: a, executor: acme.do}]", source="x"); '
        "assert 'yaml' in sys.modules"
    )
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    assert told.returncode == 0, told.stderr
