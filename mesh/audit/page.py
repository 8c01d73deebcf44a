# SPDX-License-Identifier: MIT
"""One self-contained HTML page of charts: inline SVG, no script, nothing fetched."""

import html
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeAlias

WIDTH: Final = 640
HEIGHT: Final = 320
MARGIN: Final = 56
Place: TypeAlias = Callable[[float, float], tuple[float, float]]
"""From a value to where it is drawn."""
Curves: TypeAlias = Mapping[str, Sequence[tuple[float, float]]]
"""By name: points (across, up)."""
TICKS_MAX: Final = 8
"""Numbers below the axis: more would lie upon each other."""
STEPS_MAX: Final = 4
"""Values at the axis upwards, beside its ends."""
DOTS_MAX: Final = 40
"""Of a curve: one with more is a line alone."""
COLOURS: Final = ("#1b6ca8", "#c0392b", "#27805b", "#8e5ea2", "#b8860b", "#444444")


def page(title: str, *charts: str) -> str:
    """The page."""
    style = "body{font:16px sans-serif;margin:2em auto;max-width:44em}ul{columns:2;margin:0}"
    return (
        f"<!doctype html><meta charset=utf-8><title>{html.escape(title)}</title>"
        f"<style>{style}</style><h1>{html.escape(title)}</h1>{''.join(charts)}\n"
    )


def chart(
    title: str,
    across: str,
    curves: Curves,
    limits: Curves | None = None,
    *,
    logarithmic: bool = False,
    linear: bool = False,
) -> str:
    """Curves over a logarithmic or linear axis, upwards from zero or logarithmic too.

    `limits`: curves that are drawn broken, without points.
    """
    limits = limits or {}
    points = [p for each in (curves, limits) for curve in each.values() for p in curve]
    across_of = float if linear else math.log10
    left = across_of(min(x for x, _ in points))
    right = max(across_of(max(x for x, _ in points)), left + 1e-9)
    top = max(y for _, y in points) or 1.0
    low = min(y for _, y in points) if logarithmic else 0.0

    def up(y: float) -> float:
        if not logarithmic:
            return y / top
        return math.log(max(y, low) / low) / max(math.log(top / low), 1e-9)

    def place(x: float, y: float) -> tuple[float, float]:
        share = (across_of(x) - left) / (right - left)
        return (
            MARGIN + share * (WIDTH - 2 * MARGIN),
            HEIGHT - MARGIN - up(y) * (HEIGHT - 2 * MARGIN),
        )

    ticks = thinned(sorted({x for x, _ in points}), across_of)
    parts = [_axes((low, top), across, ticks, place)]
    parts += [
        _step(value, place(points[0][0], value)[1])
        for value in steps(low, top, logarithmic=logarithmic)
    ]
    names = []
    for number, (name, curve) in enumerate({**curves, **limits}.items()):
        broken = name in limits
        colour = "#000" if broken else COLOURS[number % len(COLOURS)]
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*p) for p in curve))
        dashes = ' stroke-dasharray="6 4"' if broken else ""
        parts.append(
            f'<polyline points="{line}" fill="none" stroke="{colour}" '
            f'stroke-width="2"{dashes}/>'
        )
        if not broken and len(curve) <= DOTS_MAX:
            parts += [
                f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>'
                for x, y in (place(*p) for p in curve)
            ]
        names.append(f'<li style="color:{colour}">{html.escape(name)}</li>')
    return (
        f"<h2>{html.escape(title)}</h2>"
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" font-size="13">'
        f"{''.join(parts)}</svg><ul>{''.join(names)}</ul>"
    )


def _axes(
    ends: tuple[float, float], across: str, ticks: Sequence[float], place: Place
) -> str:
    base = HEIGHT - MARGIN
    low, top = ends
    parts = [
        f'<path d="M{MARGIN} {MARGIN}V{base}H{WIDTH - MARGIN}" fill="none" '
        'stroke="#888"/>',
        f'<text x="{MARGIN - 6}" y="{MARGIN}" text-anchor="end">{short(top)}</text>',
        f'<text x="{MARGIN - 6}" y="{base}" text-anchor="end">{short(low)}</text>',
        f'<text x="{WIDTH / 2}" y="{HEIGHT - 8}" text-anchor="middle">'
        f"{html.escape(across)}</text>",
    ]
    for tick in ticks:
        x, _ = place(tick, 0.0)
        parts.append(
            f'<text x="{x:.1f}" y="{base + 18}" text-anchor="middle">{short(tick)}</text>'
        )
    return "".join(parts)


def _step(value: float, y: float) -> str:
    """Draw a thin line at a value."""
    return (
        f'<path d="M{MARGIN} {y:.1f}H{WIDTH - MARGIN}" stroke="#ddd"/>'
        f'<text x="{MARGIN - 6}" y="{y + 4:.1f}" text-anchor="end">{short(value)}</text>'
    )


def thinned(ticks: Sequence[float], across_of: Callable[[float], float]) -> list[float]:
    """Choose those of them that lie far enough apart to be read, the ends among them."""
    apart = (across_of(ticks[-1]) - across_of(ticks[0])) / TICKS_MAX
    chosen = [ticks[0]]
    for tick in ticks[1:]:
        if across_of(tick) - across_of(chosen[-1]) >= apart:
            chosen.append(tick)
    if chosen[-1] != ticks[-1]:
        chosen[max(1, len(chosen) - 1) :] = [ticks[-1]]
    return chosen


def steps(low: float, top: float, *, logarithmic: bool) -> list[float]:
    """Choose values between the ends of the axis upwards, to be read off."""
    if not logarithmic:
        return [low + (top - low) / 2]
    tens = [10.0**power for power in range(-12, 13)]
    inside = [ten for ten in tens if 2 * low <= ten <= top / 2]
    every = -(-len(inside) // STEPS_MAX) or 1
    return inside[::every]


def short(value: float) -> str:
    """Give a number, as short as it may be."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
