"""The page on Python: its programs load, and every name it mentions exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import stretto_sdk

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "python.md").read_text()
PROGRAMS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_of_the_page_loads(program: str) -> None:
    exec(compile(program, "python.md", "exec"), {})


def test_the_page_names_what_there_is() -> None:
    assert len(PROGRAMS) == 2
    named = set(re.findall(r"`([A-Z][A-Za-z]+)`", PAGE)) - {"Exception", "ValueError", "NAME"}
    assert named and named <= set(stretto_sdk.__all__)
