# SPDX-License-Identifier: MIT
"""Two samples against each other: quantiles, a rank test, and how sure that is.

`compare` gives the AUC: the chance that a value of a busy block is above one of an idle
block, ties counting half (Mann and Whitney's U over n m).  0.5: nobody can tell by this
value alone.  Values of one block lie near each other for reasons of their own (what
else the host did), so the interval is a bootstrap over whole blocks: 2.5 and 97.5 % of
the AUCs of blocks drawn again with replacement.  Few blocks make it wide.
"""

import random
import statistics
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

DRAWS: Final = 2000
EDGE: Final = 0.025

Blocks = Sequence[Sequence[float]]


@dataclass(frozen=True)
class Spread:
    """One sample in a few figures."""

    count: int
    mean: float
    low: float
    """A quarter is below."""
    middle: float
    high: float
    """A quarter is above."""


@dataclass(frozen=True)
class Comparison:
    """A value when idle and when busy, and how well it tells them apart."""

    name: str
    idle: Spread
    busy: Spread
    auc: float
    auc_low: float
    auc_high: float

    @property
    def tells(self) -> bool:
        """Whether one half lies outside the interval."""
        return not self.auc_low <= 0.5 <= self.auc_high


def spread(values: Sequence[float]) -> Spread:
    """Describe a sample of two or more."""
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return Spread(len(values), statistics.fmean(values), low, middle, high)


def compare(name: str, idle: Blocks, busy: Blocks, seed: int = 0) -> Comparison:
    """Compare samples that came in blocks; ValueError where one has too few values."""
    idle = [sorted(block) for block in idle if block]
    busy = [sorted(block) for block in busy if block]
    samples = [[value for block in side for value in block] for side in (idle, busy)]
    if min(map(len, samples)) < 2:
        raise ValueError("two values of each kind at least")
    wins = [[_wins(theirs, ours) for ours in busy] for theirs in idle]
    pairs = [[len(theirs) * len(ours) for ours in busy] for theirs in idle]
    rng = random.Random(seed)  # noqa: S311  # the same figures for the same capture
    rows, columns = range(len(idle)), range(len(busy))
    drawn = sorted(
        _share(wins, pairs, rng.choices(rows, k=len(rows)), rng.choices(columns, k=len(columns)))
        for _ in range(DRAWS)
    )  # fmt: skip
    return Comparison(
        name,
        spread(samples[0]),
        spread(samples[1]),
        _share(wins, pairs, rows, columns),
        drawn[int(EDGE * DRAWS)],
        drawn[-1 - int(EDGE * DRAWS)],
    )


def _wins(theirs: Sequence[float], ours: Sequence[float]) -> float:
    """In how many pairs ours is above; both sorted."""
    return sum(
        (bisect_left(theirs, value) + bisect_right(theirs, value)) / 2 for value in ours
    )


def _share(
    wins: Sequence[Sequence[float]],
    pairs: Sequence[Sequence[int]],
    rows: Sequence[int],
    columns: Sequence[int],
) -> float:
    won = sum(wins[row][column] for row in rows for column in columns)
    return won / sum(pairs[row][column] for row in rows for column in columns)
