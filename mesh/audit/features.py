# SPDX-License-Identifier: MIT
"""Windows of cells, and each of them as a row of numbers.

`cut` takes n cells of each side that follow each other in one block; what is left over
at a block's end is left out.  The first gap of a window belongs to what was before, so
a window has n - 1 gaps.  `features` gives, for each side:

    gaps         mean, deviation, least, most, quantiles, shares of the histogram;
                 mean logarithm and mean inverse (a late cell shows at small gaps first);
                 how a gap and a small gap go with the next one (a late cell makes one
                 longer and the next one shorter); below 50 us; cells that are missing
    phase        mean, deviation, least and most distance from the grid, and how well
                 there is one
    ACKs         delay: mean, deviation, least, most, quantiles, how many have none; how many
    segments     number, octets of first and last, sent again; the TCP window
    the other    how long ago the other side's last cell was: mean, least, quantiles

The grid is that of period T, fitted: T to the trace by the drift of its phase, the phase
to the cells around a window (not its own), because a link begins anew now and then.
Nothing here looks at a label, so one matrix serves every labelling of the same cells.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from mesh.audit.trace import NO_BLOCK, SIDES, Bools, Floats, Ints, Trace

QUANTILES: Final = (0.02, 0.1, 0.25, 0.5, 0.75, 0.9, 0.98)
PARTS: Final = 12
"""Of a histogram; its edges are quantiles of all windows, closer at the low end."""
SMALL_GAP: Final = 50e-6
"""Cells nearer than that left together: a sender that had piled them up."""
AROUND: Final = 1024
"""Cells before a window, and behind it, that its grid's phase is fitted to."""
DRIFT_CELLS: Final = 256
"""Cells a phase is taken over when the period is fitted."""
STRETCH_SECONDS: Final = 30.0
"""Without a cell: another link, at another time."""
STRETCHES_MIN: Final = 20
"""Two for each of the attackers' folds."""
INVERSE_MOST: Final = 64.0
"""T / gap above this counts as this: one pile of cells is not to outweigh all else."""


@dataclass(frozen=True)
class Windows:
    """Windows of one trace; each has `cells` rows of each side."""

    trace: Trace
    cells: int
    index: Ints
    """Rows of the trace: (side, window, cell)."""

    @property
    def block(self) -> Ints:
        """The block of each window."""
        blocks: Ints = self.trace.rows["block"][self.index[0, :, 0]].astype(np.int64)
        return blocks

    @property
    def label(self) -> Bools:
        """Whether each window is a busy one."""
        busy: Bools = self.trace.rows["busy"][self.index[0, :, 0]]
        return busy

    def unit(self, label: Bools) -> Ints:
        """What each window lies in that is learned from as a whole: see attackers.py.

        A stretch without a long silence, which is a piece of the lab's (lab.py); a block
        where few of them have windows of either kind.
        """
        at = self.trace.rows["at"]
        stretch: Ints = np.cumsum(np.diff(at, prepend=at[:1]) > STRETCH_SECONDS)
        mine = stretch[self.index[0, :, 0]]
        mixed = np.intersect1d(mine[label], mine[~label])
        return mine if len(mixed) >= STRETCHES_MIN else self.block

    def those(self, mask: Bools) -> "Windows":
        """Some of them, one truth a window."""
        return replace(self, index=self.index[:, mask])

    def of(self, side: int, field: str) -> Floats:
        """One field of one side: (window, cell)."""
        values: Floats = self.trace.rows[field][self.index[side]].astype(np.float64)
        return values

    def gaps(self, side: int) -> Floats:
        """Gaps within the windows, seconds: (window, cells - 1)."""
        gaps = self.of(side, "gap")[:, 1:]
        return np.nan_to_num(gaps, nan=1 / self.trace.rate)

    def __len__(self) -> int:
        return int(self.index.shape[1])


def cut(trace: Trace, cells: int) -> Windows:
    """Cut each block into windows of so many cells a side; two at least."""
    if cells < 2:
        raise ValueError("a window has two cells at least")
    blocks = np.unique(trace.rows["block"])
    blocks = blocks[blocks != NO_BLOCK]
    starts, held = [], []
    for side in SIDES:
        mine = np.flatnonzero(
            (trace.rows["side"] == side) & (trace.rows["block"] != NO_BLOCK)
        )
        # A block lies in one piece in the time, but a stable order asks for no more.
        mine = mine[np.argsort(trace.rows["block"][mine], kind="stable")]
        of_block = trace.rows["block"][mine]
        starts.append(np.searchsorted(of_block, blocks, side="left"))
        ends = np.searchsorted(of_block, blocks, side="right")
        held.append((mine, (ends - starts[-1]) // cells))
    count = np.minimum(held[0][1], held[1][1])
    number = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    index = np.stack(
        [
            mine[(np.repeat(start, count) + number * cells)[:, None] + np.arange(cells)]
            for start, (mine, _) in zip(starts, held, strict=True)
        ]
    )
    return Windows(trace, cells, index)


def phases(windows: Windows, side: int) -> Floats:
    """Distance of each cell from its window's grid, in T, from -1/2 to 1/2."""
    rows = windows.trace.rows
    mine = np.flatnonzero(rows["side"] == side)
    turns = (rows["at"][mine] - rows["at"][:1]) * windows.trace.rate
    circle = np.exp(math.tau * 1j * (turns - _drift(turns)))
    sums = np.concatenate([np.zeros(1, complex), np.cumsum(circle)])
    place = np.searchsorted(mine, windows.index[side])
    begin, end = place[:, 0], place[:, -1] + 1
    far, near = np.minimum(end + AROUND, len(mine)), np.maximum(begin - AROUND, 0)
    grid = sums[far] - sums[end] + sums[begin] - sums[near]
    away: Floats = np.angle(circle[place] * np.conj(grid)[:, None]) / math.tau
    return away


def _drift(turns: Floats) -> Floats:
    """By how many turns a grid of the nominal period is left behind, at each cell."""
    whole = len(turns) // DRIFT_CELLS * DRIFT_CELLS
    if whole < 2 * DRIFT_CELLS:
        return np.zeros(len(turns))
    parts = np.exp(math.tau * 1j * turns[:whole]).reshape(-1, DRIFT_CELLS).sum(axis=1)
    step = np.angle((parts[1:] * np.conj(parts[:-1])).sum()) / math.tau
    centre = turns[:whole].reshape(-1, DRIFT_CELLS).mean(axis=1)
    drift: Floats = turns * (step / float(np.median(np.diff(centre))))
    return drift


def edges(values: Floats, parts: int = PARTS) -> Floats:
    """Inner edges of a histogram: quantiles of all, closer and closer at the low end."""
    low = np.quantile(values, [0.0005, 0.005, 0.02])
    even = np.quantile(values, np.linspace(0, 1, parts - 2)[1:-1])
    inner: Floats = np.unique(np.concatenate([low, even]))
    return inner


def shares(values: Floats, inner: Floats) -> Floats:
    """Give the share of each window's values in each part: (window, part)."""
    parts = np.searchsorted(inner, values, side="right")
    windows, width = values.shape
    flat = parts + np.arange(windows)[:, None] * (len(inner) + 1)
    counts = np.bincount(flat.ravel(), minlength=windows * (len(inner) + 1))
    share: Floats = counts.reshape(windows, -1) / width
    return share


def features(windows: Windows) -> Floats:
    """Give the matrix (window, feature)."""
    return np.concatenate(
        [part(windows, side) for side in SIDES for part in _PARTS], axis=1
    )


def _columns(*columns: Floats) -> Floats:
    return np.column_stack(columns)


def _spread(values: Floats, quantiles: Sequence[float] = QUANTILES) -> Floats:
    return _columns(
        values.mean(axis=1),
        values.std(axis=1),
        values.min(axis=1),
        values.max(axis=1),
        *np.quantile(values, quantiles, axis=1),
    )


def _next(values: Floats) -> Floats:
    """Correlation of each value with the one after it, by window."""
    if values.shape[1] < 3:
        return np.zeros(len(values))
    near = values - values.mean(axis=1, keepdims=True)
    both = (near[:, 1:] * near[:, :-1]).mean(axis=1)
    spread = np.maximum(near.var(axis=1), 1e-30)
    found: Floats = both / spread
    return found


def _gaps(windows: Windows, side: int) -> Floats:
    gaps = windows.gaps(side)
    in_periods = gaps * windows.trace.rate
    inverse = np.minimum(1 / np.maximum(in_periods, 1e-9), INVERSE_MOST)
    return _columns(
        _spread(gaps),
        shares(gaps, edges(gaps)),
        np.log(np.maximum(in_periods, 1e-4)).mean(axis=1),
        inverse.mean(axis=1),
        _next(gaps),
        _next(inverse),
        (gaps < SMALL_GAP).mean(axis=1),
        np.maximum(np.rint(in_periods) - 1, 0).mean(axis=1),
    )


def _phase(windows: Windows, side: int) -> Floats:
    away = phases(windows, side)
    turns = np.exp(math.tau * 1j * away).mean(axis=1)
    return _columns(
        away.mean(axis=1),
        away.std(axis=1),
        away.min(axis=1),
        away.max(axis=1),
        np.angle(turns),
        np.abs(turns),
    )


def _acks(windows: Windows, side: int) -> Floats:
    delay, acks = windows.of(side, "ack_delay"), windows.of(side, "acks")
    return _columns(
        _spread(known(delay)),
        np.isnan(delay).mean(axis=1),
        acks.mean(axis=1),
        acks.std(axis=1),
    )


def known(values: Floats) -> Floats:
    """Values with the median in the place of those that nobody saw."""
    seen = values[~np.isnan(values)]
    return np.nan_to_num(values, nan=float(np.median(seen)) if len(seen) else 0.0)


def _segments(windows: Windows, side: int) -> Floats:
    columns = []
    for field in ("segments", "first", "last", "again", "window"):
        values = windows.of(side, field)
        columns += [values.mean(axis=1), values.min(axis=1), values.max(axis=1)]
    return _columns(*columns)


def _other(windows: Windows, side: int) -> Floats:
    rows = windows.trace.rows
    at = rows["at"]
    theirs = at[rows["side"] != side]
    mine = windows.of(side, "at")
    last = np.searchsorted(theirs, mine, side="left") - 1
    ago = np.where(last >= 0, mine - theirs[np.maximum(last, 0)], 0.0)
    return _spread(ago, (0.02, 0.1, 0.5, 0.9))


_PARTS: Final[Sequence[Callable[[Windows, int], Floats]]] = (
    _gaps,
    _phase,
    _acks,
    _segments,
    _other,
)
