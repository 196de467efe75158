"""Draws lines as SVG, both axes logarithmic, without a library."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

Points = Sequence[tuple[float, float]]

WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT = 720, 340, 60, 45, 20, 190
COLOURS = ("#1b6ca8", "#c8553d", "#3a7d44", "#7d5ba6", "#a98600", "#4a4a4a")


def log_log(lines: Mapping[str, Points], *, x: str, y: str) -> str:
    """Return the picture of these lines; each point is (x, y), both above 0."""
    points = [point for line in lines.values() for point in line]
    low_x, high_x = _decades([at for at, _ in points])
    low_y, high_y = _decades([value for _, value in points])

    def across(at: float) -> float:
        return LEFT + (math.log10(at) - low_x) / (high_x - low_x) * (WIDTH - LEFT - RIGHT)

    def down(value: float) -> float:
        share = (math.log10(value) - low_y) / (high_y - low_y)
        return HEIGHT - BOTTOM - share * (HEIGHT - BOTTOM - TOP)

    parts = []
    for power in range(low_x, high_x + 1):
        at = across(10.0**power)
        parts.append(_rule(at, TOP, at, HEIGHT - BOTTOM))
        parts.append(_words(at, HEIGHT - BOTTOM + 15, f"{10**power:,}", "middle"))
    for power in range(low_y, high_y + 1):
        at = down(10.0**power)
        parts.append(_rule(LEFT, at, WIDTH - RIGHT, at))
        parts.append(_words(LEFT - 6, at + 4, f"{10.0**power:g}", "end"))
    for place, (name, line) in enumerate(lines.items()):
        colour = COLOURS[place % len(COLOURS)]
        path = " ".join(f"{across(at):.1f},{down(value):.1f}" for at, value in line)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        legend = TOP + 14 + 18 * place
        parts.append(_words(WIDTH - RIGHT + 12, legend, name, "start", colour))
    parts.append(_words((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, x, "middle"))
    parts.append(_words(LEFT, TOP - 7, y, "start"))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}"'
        ' font-family="sans-serif" font-size="11"><rect width="100%" height="100%" fill="#fff"/>'
        + "".join(parts)
        + "</svg>\n"
    )


def write(path: Path, lines: Mapping[str, Points], *, x: str, y: str) -> None:
    """Write the picture to this file."""
    path.write_text(log_log(lines, x=x, y=y), encoding="utf-8")


def _decades(values: Sequence[float]) -> tuple[int, int]:
    low = math.floor(math.log10(min(values)))
    return low, max(low + 1, math.ceil(math.log10(max(values))))


def _rule(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="#ddd"/>'


def _words(x: float, y: float, words: str, anchor: str, colour: str = "#222") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}">{words}</text>'
