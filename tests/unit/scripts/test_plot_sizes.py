"""The drawing of what a task costs: from the bench's lines to an SVG that holds every figure."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

SCRIPT = Path(__file__).resolve().parents[3] / "scripts" / "plot_sizes.py"
SVG = "{http://www.w3.org/2000/svg}"


def figure(workload: str, metric: str, median: float) -> str:
    return json.dumps(
        {"workload": workload, "metric": metric, "median": median, "min": median, "max": 900}
    )


def plotted(lines: str, tmp_path: Path) -> tuple[subprocess.CompletedProcess[str], Path]:
    source, target = tmp_path / "lines", tmp_path / "plot.svg"
    source.write_text(lines)
    command = [sys.executable, str(SCRIPT), str(source), str(target)]
    return subprocess.run(command, capture_output=True, text=True, check=False), target


def test_every_size_is_in_the_drawing_and_nothing_else(tmp_path: Path) -> None:
    lines = "\n".join(
        [
            figure("size-100000", "cpu_us_per_task", 709),
            figure("W2", "p50_ms", 5),
            figure("size-1000", "cpu_us_per_task", 570),
        ]
    )
    done, target = plotted(lines, tmp_path)
    assert done.returncode == 0, done.stderr
    drawing = ElementTree.fromstring(target.read_text())
    texts = [each.text for each in drawing.iter(f"{SVG}text")]
    assert len(list(drawing.iter(f"{SVG}circle"))) == 2
    assert {"570", "709", "1,000", "100,000"} <= set(texts)


@pytest.mark.parametrize("lines", ["", figure("W2", "p50_ms", 5)])
def test_nothing_to_draw_is_said(lines: str, tmp_path: Path) -> None:
    done, target = plotted(lines, tmp_path)
    assert done.returncode == 1
    assert "no figure of size" in done.stderr and "Traceback" not in done.stderr
    assert not target.exists()
