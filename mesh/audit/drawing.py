# SPDX-License-Identifier: MIT
"""Two pictures in SVG: a wire, and what a receiver operates at.

    strip    time goes right; a tick for each cell, up: the first node's, down: the
             second's.  One lane above the other over one scale of time, so that the eye
             compares idle and busy.
    curves   false positives right, true positives up, both from 0 to 1; the broken
             diagonal is who knows nothing.  Controls are broken lines.

Text is escaped here and nowhere else; sizes are in units of the view box, so that the
page scales them.
"""

import html
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from mesh.audit.figures import Curve
from mesh.audit.page import COLOURS

Ticks = Sequence[tuple[float, int]]
"""Cells: seconds since the lane's begin, and whose (0 or 1)."""

STRIP_WIDTH: Final = 960
LANE_HEIGHT: Final = 34
LABEL_WIDTH: Final = 150
TICK: Final = 12
"""How far a cell's tick reaches up or down."""
AXIS_HEIGHT: Final = 22
SQUARE: Final = 260
EDGE: Final = 40
"""Around a square, for its numbers."""
POINTS_MAX: Final = 200
"""Of a curve: more cannot be seen, and would make the page large."""
UP_COLOUR: Final = COLOURS[0]
DOWN_COLOUR: Final = COLOURS[4]


@dataclass(frozen=True)
class Lane:
    """One stretch of wire."""

    name: str
    ticks: Ticks


@dataclass(frozen=True)
class Line:
    """One receiver."""

    name: str
    points: Curve
    is_control: bool = False


def strip(lanes: Sequence[Lane], seconds: float) -> str:
    """Lanes of `seconds` each, one above the other."""
    height = LANE_HEIGHT * len(lanes) + AXIS_HEIGHT
    scale = (STRIP_WIDTH - LABEL_WIDTH - 10) / seconds
    parts = []
    for number, lane in enumerate(lanes):
        middle = LANE_HEIGHT * number + LANE_HEIGHT // 2
        parts.append(
            f'<text x="0" y="{middle + 4}">{html.escape(lane.name)}</text>'
            f'<path d="M{LABEL_WIDTH} {middle}H{STRIP_WIDTH - 10}" stroke="#bbb"/>'
        )
        for side, colour, reach in ((0, UP_COLOUR, -TICK), (1, DOWN_COLOUR, TICK)):
            ticks = "".join(
                f"M{LABEL_WIDTH + at * scale:.1f} {middle}v{reach}"
                for at, whose in lane.ticks
                if whose == side and 0 <= at <= seconds
            )
            parts.append(f'<path d="{ticks}" stroke="{colour}" stroke-width="1.4"/>')
    base = LANE_HEIGHT * len(lanes)
    for step in range(5):
        x = LABEL_WIDTH + step / 4 * seconds * scale
        anchor = "end" if step == 4 else "middle"
        parts.append(
            f'<text x="{x:.1f}" y="{base + 14}" text-anchor="{anchor}" fill="#555">'
            f"{step / 4 * seconds:.3g} s</text>"
        )
    return (
        f'<svg viewBox="0 0 {STRIP_WIDTH} {height}" width="100%" font-size="12" '
        f'role="img">{"".join(parts)}</svg>'
    )


def curves(title: str, lines: Sequence[Line]) -> str:
    """One square with its legend; the first line lies on top."""
    drawn, names = [], []
    for number, line in enumerate(lines):
        colour = COLOURS[number % len(COLOURS)]
        points = " ".join(
            f"{EDGE + x * SQUARE:.1f},{EDGE / 2 + (1 - y) * SQUARE:.1f}"
            for x, y in thinned(line.points)
        )
        dashes = ' stroke-dasharray="6 3"' if line.is_control else ""
        drawn.append(
            f'<polyline points="{points}" fill="none" stroke="{colour}" '
            f'stroke-width="{1.5 if line.is_control else 2.5}"{dashes}/>'
        )
        shape = "- -" if line.is_control else "&mdash;"
        names.append(
            f'<li style="color:{colour}">{shape} {html.escape(line.name)}</li>'
        )
    whole = SQUARE + EDGE + EDGE // 2
    return (
        f"<figure><figcaption>{html.escape(title)}</figcaption>"
        f'<svg viewBox="0 0 {whole} {whole}" width="{whole}" font-size="12" role="img">'
        f"{_square()}{''.join(reversed(drawn))}</svg>"
        f"<ul>{''.join(names)}</ul></figure>"
    )


def thinned(points: Curve) -> Curve:
    """So many of the points as can be seen, the ends among them."""
    if len(points) <= POINTS_MAX:
        return points
    last = len(points) - 1
    return tuple(points[last * n // (POINTS_MAX - 1)] for n in range(POINTS_MAX))


def _square() -> str:
    left, top = EDGE, EDGE // 2
    base, right = top + SQUARE, left + SQUARE
    parts = [
        f'<path d="M{left} {top}V{base}H{right}" fill="none" stroke="#888"/>',
        f'<path d="M{left} {base}L{right} {top}" stroke="#999" '
        'stroke-dasharray="2 4"/>',
        f'<text x="{left + SQUARE / 2}" y="{base + 32}" text-anchor="middle">'
        "false positives</text>",
        f'<text x="12" y="{top + SQUARE / 2}" text-anchor="middle" '
        f'transform="rotate(-90 12 {top + SQUARE / 2})">true positives</text>',
    ]
    for number in (0, 0.5, 1):
        x, y = left + number * SQUARE, base - number * SQUARE
        parts.append(
            f'<text x="{x}" y="{base + 16}" text-anchor="middle">{number:g}</text>'
            f'<text x="{left - 5}" y="{y + 4}" text-anchor="end">{number:g}</text>'
        )
    return "".join(parts)
