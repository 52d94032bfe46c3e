"""Draws CPU per task against the size of a run, from the bench's JSON lines, as an SVG.

Usage: plot_sizes.py LINES FILE. Reads the figures `size-N` (cpu_us_per_task); whiskers are least
and most. The band is what the target allows: 20 % above a run of 1,000.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

WIDTH, HEIGHT = 640, 320
LEFT, RIGHT, TOP, BOTTOM = 64, 24, 40, 48
BAND = 1.2


class Size(NamedTuple):
    """What a task of a run of so many cost, in microseconds of CPU."""

    tasks: int
    median: float
    least: float
    most: float


def sizes_in(text: str) -> list[Size]:
    """Return the sizes among the lines, smallest first."""
    found = []
    for figure in map(json.loads, filter(None, text.splitlines())):
        name = figure["workload"]
        if name.startswith("size-") and figure["metric"] == "cpu_us_per_task":
            tasks = int(name.removeprefix("size-"))
            found.append(Size(tasks, figure["median"], figure["min"], figure["max"]))
    return sorted(found)


def drawn(sizes: list[Size]) -> str:
    """Return the SVG."""
    top_us = math.ceil(max(size.most for size in (*sizes, _allowed(sizes))) / 100) * 100
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}"'
        ' font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<text x="{LEFT}" y="22" font-size="14">CPU per task (us, all processes)'
        " against the tasks of one run</text>",
        *_axes(sizes, top_us),
        *_points(sizes, top_us),
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def _allowed(sizes: list[Size]) -> Size:
    return Size(0, 0, 0, sizes[0].median * BAND)


def _x(tasks: int, sizes: list[Size]) -> float:
    first, last = math.log10(sizes[0].tasks), math.log10(sizes[-1].tasks)
    share = (math.log10(tasks) - first) / max(last - first, 1e-9)
    return LEFT + 24 + share * (WIDTH - LEFT - RIGHT - 48)


def _y(cost_us: float, top_us: float) -> float:
    return HEIGHT - BOTTOM - cost_us / top_us * (HEIGHT - TOP - BOTTOM)


def _axes(sizes: list[Size], top_us: float) -> Iterator[str]:
    low, high = _y(sizes[0].median, top_us), _y(sizes[0].median * BAND, top_us)
    yield (
        f'<rect x="{LEFT}" y="{high:.1f}" width="{WIDTH - LEFT - RIGHT}"'
        f' height="{low - high:.1f}" fill="#e8f0e8"/>'
    )
    for cost_us in range(0, int(top_us) + 1, 100):
        y = _y(cost_us, top_us)
        yield f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="#ddd"/>'
        yield f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{cost_us}</text>'
    for size in sizes:
        x = _x(size.tasks, sizes)
        yield f'<text x="{x:.1f}" y="{HEIGHT - 20}" text-anchor="middle">{size.tasks:,}</text>'


def _points(sizes: list[Size], top_us: float) -> Iterator[str]:
    places = [(_x(size.tasks, sizes), size) for size in sizes]
    path = "L".join(f"{x:.1f} {_y(size.median, top_us):.1f}" for x, size in places)
    yield f'<path d="M{path}" fill="none" stroke="#346"/>'
    for x, size in places:
        y, low, high = (_y(cost, top_us) for cost in (size.median, size.least, size.most))
        yield f'<path d="M{x:.1f} {low:.1f}V{high:.1f}" stroke="#346"/>'
        yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="#346"/>'
        yield f'<text x="{x + 8:.1f}" y="{y - 8:.1f}">{size.median:.0f}</text>'


def main(lines: str, file: str) -> None:
    """Read the lines and write the drawing. Ends with a word when there is nothing to draw."""
    sizes = sizes_in(Path(lines).read_text())
    if not sizes:
        sys.exit("plot_sizes: no figure of size-N among the lines")
    Path(file).write_text(drawn(sizes))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: plot_sizes.py LINES FILE (make plot FROM=lines)")
    main(*sys.argv[1:])
