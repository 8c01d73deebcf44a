# SPDX-License-Identifier: MIT
"""What the pacer's lateness could tell at most, in windows that no capture reaches.

The pacer counts how late its cells were (mesh/node/pacer/histogram.py: doubling buckets
of microseconds).  Given the counts of an idle node and of a busy one, windows of cells
are drawn by the clock's own law and read by the exact filter, which knows both counts,
the clock and its grid: under what is assumed below no snooper of gaps does better.  One
hour at a cell a second is a window of 3,600, and a leak that would need a year of capture
to show has its bound.

With P and Q the laws of an idle and a busy window, M their mean, and r = (q - p)/(q + p),
which is tanh of half the log likelihood ratio:

    bits   E_M[1 - h((1 + r) / 2)]     exactly what a window tells of a fair coin; h is
                                       the binary entropy
    auc    1/2 + E_M[r (2 F - 1)]      F: the rank, from 0 to 1, of r under M
    most   1/2 + sqrt(E_M[r^2] / 3)    at least auc, by Cauchy and Schwarz, and close to
                                       it where a leak is weak

All three are means of bounded numbers that are small where the leak is, so a few
thousand windows give them to a few per cent, however small.  The upper limits are
one-sided 95 %; they are those of the simulation, not of the counts: the counts' own
noise makes a bound larger, as would a leak.

Assumed: a cell's lateness does not depend on that of the cell before, and lies in the
middle of its bucket (geometrically): what moves within one is no leak here.  Of lateness
that comes in runs a capture tells.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from mesh.audit.filters import SHAPES, forward
from mesh.audit.statistics import ranks
from mesh.audit.trace import Floats
from mesh.core.clock import Clock

WINDOWS: Final = 1000
"""Of each kind: bits and r^2 to 5 %, in half a minute for windows of 3,600 cells."""
SURE_ERRORS: Final = 1.645
"""Standard errors of a one-sided 95 % limit."""
PRIOR: Final = 0.5
"""Cells that are thought into each bucket (Jeffreys), so that none that one node never
saw is called impossible."""
MICROSECOND: Final = 1e-6
TOGETHER: Final = 2000
"""Windows side by side."""


@dataclass(frozen=True)
class Bound:
    """What windows of so many cells tell, by the exact filter."""

    cells: int
    auc: float
    most: float
    """95 % limit of what the AUC is at most."""
    bits: float
    bits_upper: float
    """95 % limit."""


def seconds(buckets: int) -> Floats:
    """Lateness of each bucket's middle: none, then from half a microsecond, doubling."""
    middles: Floats = MICROSECOND * np.exp2(np.arange(buckets, dtype=np.float64) - 0.5)
    middles[:1] = 0.0
    return middles


def bound(
    clock: Clock,
    rate: float,
    cells: int,
    idle: Sequence[int],
    busy: Sequence[int],
    rng: np.random.Generator,
    windows: int = WINDOWS,
) -> Bound:
    """Bound what gaps tell, from the pacer's counts of a class, idle and busy.

    ValueError: no cells were counted, or the clock has no law (`greedy`).
    """
    counts = np.array([idle, busy], dtype=np.float64)
    if not counts.sum(axis=1).all():
        raise ValueError("counts of both an idle and a busy node are wanted")
    used = counts.sum(axis=0) > 0
    counts = counts[:, used] + PRIOR
    late = seconds(len(used))[used] * rate
    return exact(clock, cells, late, counts, rng, windows)


def exact(
    clock: Clock,
    cells: int,
    late: Floats,
    weights: Floats,
    rng: np.random.Generator,
    windows: int = WINDOWS,
) -> Bound:
    """Do the same of lateness in T, and any weights (2, bin) of idle and busy."""
    laws = weights / weights.sum(axis=1, keepdims=True)
    ratio = np.concatenate(
        [
            _ratio(clock, cells, late, laws, law, rng, some)
            for law in laws
            for some in _portions(windows)
        ]
    )
    return told(cells, ratio)


def told(cells: int, ratio: Floats) -> Bound:
    """Give what log likelihood ratios tell, of as many idle windows as of busy ones."""
    r = np.tanh(ratio / 2)
    place = (ranks(ratio) - 0.5) / len(ratio)
    square, bits = r * r, _information(r)
    return Bound(
        cells=cells,
        auc=min(1.0, 0.5 + float((r * (2 * place - 1)).mean())),
        most=min(1.0, 0.5 + math.sqrt(_upper(square) / 3)),
        bits=float(bits.mean()),
        bits_upper=min(1.0, _upper(bits)),
    )


def _portions(windows: int) -> list[int]:
    return [min(TOGETHER, windows - at) for at in range(0, windows, TOGETHER)]


def _upper(values: Floats) -> float:
    error = float(values.std(ddof=1)) / math.sqrt(len(values))
    return float(values.mean()) + SURE_ERRORS * error


def _information(r: Floats) -> Floats:
    """1 - h((1 + r) / 2) in bits, for small r too: log1p keeps what 1 + r would lose."""
    most = np.minimum(np.abs(r), 1 - 1e-16)
    bits: Floats = (
        (1 + most) * np.log1p(most) + (1 - most) * np.log1p(-most)
    ) / math.log(4)
    return bits


def _ratio(
    clock: Clock,
    cells: int,
    late: Floats,
    laws: Floats,
    law: Floats,
    rng: np.random.Generator,
    windows: int,
) -> Floats:
    """Log of busy over idle, of windows whose lateness is drawn from one of the laws."""
    bins = rng.choice(len(late), (windows, cells), p=law)
    if clock.name.lower() in SHAPES:
        shape = SHAPES[clock.name.lower()]
        gaps = rng.gamma(shape, 1 / shape, (windows, cells - 1))
        gaps = gaps + np.diff(late[bins], axis=1)
        # A gap may be below zero here: this snooper even knows which cell is which.
        idle, busy = forward(gaps, late, laws, shape)
    elif clock is Clock.SLOTTED:
        seen = _places(windows * cells, rng) + late[bins].ravel()
        of_each = np.stack([_cosine(seen - each) for each in late])
        idle, busy = (
            np.log(each @ of_each).reshape(windows, cells).sum(axis=1) for each in laws
        )
    elif clock is Clock.CONSTANT:
        idle, busy = (np.log(each)[bins].sum(axis=1) for each in laws)
    else:
        raise ValueError("a greedy link has no law")
    ratio: Floats = busy - idle
    return ratio


def _cosine(place: Floats) -> Floats:
    """Density of a place in a slot, and nearly nothing beside it."""
    inside = (place > 0) & (place < 1)
    return np.where(inside, 2 * np.sin(math.pi * place) ** 2, 1e-12)


def _places(count: int, rng: np.random.Generator) -> Floats:
    """Draw places of that density, by rejection."""
    places = np.empty(0)
    while len(places) < count:
        some = rng.random(3 * count)
        kept = some[rng.random(3 * count) < np.sin(math.pi * some) ** 2]
        places = np.concatenate([places, kept])
    return places[:count]
