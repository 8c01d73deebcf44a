# SPDX-License-Identifier: MIT
"""Who tells idle windows from busy ones: one that learns, two that know the clock.

    see     windows -> what the attacker has of each: a matrix, without the labels
    tell    matrix, labels -> a score of each window, from a fit to other units

Learned          gradient boosting (Friedman, Annals of Statistics 29, 2001) over all of
                 features.py
LikelihoodRatio  the logarithm of the likelihood ratio, to the first order about the law
                 of all windows together (Rao's score; no test is stronger against a
                 weak leak: Neyman and Pearson).  Of a clock without memory its terms
                 are the numbers of cells in each bin of lateness, given the gaps, by the
                 exact filter (filters.py); of a clock with a grid, those in each
                 part of the phase; without a clock, those of each gap.  And, of all,
                 those of each ACK delay, the time that passed, and cells missing.  The
                 weight of each is fitted on the training units: by the difference of
                 the classes' histograms over the covariance (Fisher's discriminant)
LateCells        the likelihood ratio itself, of two laws that nobody fitted: of lateness
                 as it may be, and of the same with the first node's cells later by an
                 exponential of mean T / 16.  No window is spent on a weight, and what
                 the laws lack does little harm: it finds a lateness of T / 80 as of T / 3
                 as the exact filter does that knows both laws (whitebox.py).  That is
                 so for `renewal`; the edge of `poisson` at gap 0 asks how many cells
                 leave together, a grid for the mean phase, no clock how fast cells come

Folds are of whole units, in an order drawn by chance; each is scored by a fit to those
before it (Dawid, "prequential", JRSS A 147, 1984).  The first one trains only: its
scores are nan.  Were each fold scored by a fit to all others, every pair of folds would
count twice, and where there is nothing to find the AUC's error would be the square root
of 2 of what a bootstrap shows (see Bengio and Grandvalet, JMLR 5, 2004).  A fold's
scores are their ranks in it, from 0 to 1, so that two fits' scales do not mix.

A unit is a block or, where there are many links in a trace, all blocks of one
(features.py).  A link has a look of its own, for its host was so busy just then, and about
as many busy blocks as idle ones.  Who learns from some of them that such links are busy
meets the idle rest: his AUC falls below one half, and varies as that of few links would.
"""

from collections.abc import Iterator
from typing import ClassVar, Final, Protocol

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier
from threadpoolctl import threadpool_limits

from mesh.audit import filters
from mesh.audit.features import (
    Windows,
    edges,
    features,
    known,
    phases,
    shares,
)
from mesh.audit.statistics import ranks
from mesh.audit.trace import SIDES, Bools, Floats, Ints
from mesh.core.clock import ERLANG_SHAPE, Clock

FOLDS: Final = 10
"""At most: a tenth of the windows has no score, and half of them train on average."""
FOLD_WINDOWS: Final = 20
"""At least: ranks of fewer say little."""
RIDGE: Final = 0.01
"""Of a column's variance, at least: bins that the gaps cannot part get no weights of their
own.  With fewer than a hundred windows a column it is one over their number a column."""
DROP_SHARE: Final = 1e-3
"""About this share of cells missing, a missing one is looked for."""
TREES: Final = 120
"""Small ones, each of little weight: more of them find no more."""
LATER: Final = 1 / 16
"""In T: how much later busy cells are thought to be."""
TOGETHER: Final = 1 / 256
"""In T: a cell that waits for the one before leaves so soon after it."""
GRIDS: Final = (Clock.SLOTTED.name.lower(), Clock.CONSTANT.name.lower())
"""Clocks with a grid."""
SEEDS: Final = 1 << 31


class Attacker(Protocol):
    """Tells windows apart."""

    @property
    def name(self) -> str:
        """For people."""

    def see(self, windows: Windows, rng: np.random.Generator) -> Floats:
        """What there is of each window, whatever its label: (window, number)."""

    def tell(
        self, matrix: Floats, label: Bools, unit: Ints, rng: np.random.Generator
    ) -> Floats:
        """A score of each window, higher for busy, from 0 to 1, or nan; see above."""


class Learned:
    """Gradient boosting over every feature."""

    name: ClassVar[str] = "learned"

    def __init__(self, trees: int = TREES) -> None:
        self._trees = trees

    def see(self, windows: Windows, rng: np.random.Generator) -> Floats:
        """All features."""
        del rng
        return features(windows)

    def tell(
        self, matrix: Floats, label: Bools, unit: Ints, rng: np.random.Generator
    ) -> Floats:
        """Boost; leaks are weak and many, so no tree may rest on a few windows."""
        score = np.full(len(label), np.nan)
        for train, test in folds(label, unit, rng):
            model = HistGradientBoostingClassifier(
                learning_rate=0.05,
                max_iter=self._trees,
                max_leaf_nodes=6,
                min_samples_leaf=max(5, min(100, int(train.sum()) // 50)),
                l2_regularization=5.0,
                max_features=0.3,
                early_stopping=False,
                random_state=int(rng.integers(SEEDS)),
            )
            with threadpool_limits(
                1
            ):  # more of them wait for each other on a busy host
                model.fit(matrix[train], label[train])
                score[test] = placed(model.decision_function(matrix[test]))
        return score


class LikelihoodRatio:
    """Knows the clock; fits how late cells are, and what that has to do with mail."""

    name: ClassVar[str] = "likelihood ratio"

    def see(self, windows: Windows, rng: np.random.Generator) -> Floats:
        """The terms of both sides."""
        return np.concatenate([_terms(windows, side, rng) for side in SIDES], axis=1)

    def tell(
        self, matrix: Floats, label: Bools, unit: Ints, rng: np.random.Generator
    ) -> Floats:
        """Weigh the terms by what the training units say of them."""
        spread = matrix.std(axis=0)
        there = spread > 1e-9 * np.maximum(1e-9, np.abs(matrix).max(axis=0))
        terms = (matrix[:, there] - matrix[:, there].mean(axis=0)) / spread[there]
        score = np.full(len(label), np.nan)
        for train, test in folds(label, unit, rng):
            busy, idle = terms[train & label], terms[train & ~label]
            within = _scatter(busy) + _scatter(idle)
            ridge = max(RIDGE, terms.shape[1] / int(train.sum()))
            within = within / int(train.sum()) + ridge * np.eye(terms.shape[1])
            weight = np.linalg.solve(within, busy.mean(axis=0) - idle.mean(axis=0))
            score[test] = placed(terms[test] @ weight)
        return score


class LateCells:
    """Thinks that busy cells are later, and by which law; fits nothing to labels."""

    name: ClassVar[str] = "late cells"

    def see(self, windows: Windows, rng: np.random.Generator) -> Floats:
        """One column: the first node's lateness."""
        del rng
        clock, gaps = windows.trace.clock, _in_periods(windows, 0)
        if filters.SHAPES.get(clock) == ERLANG_SHAPE:
            late, share = filters.lateness_bins(), filters.prior()
            laws = np.stack([share, filters.later(late, share, LATER)])
            idle, busy = filters.forward(gaps, late, laws, ERLANG_SHAPE)
            found = busy - idle
        elif clock in filters.SHAPES:
            found = (gaps < TOGETHER).sum(axis=1)
        elif clock in GRIDS:
            found = phases(windows, 0).mean(axis=1)
        else:
            found = -gaps.sum(axis=1)
        return np.column_stack([found]).astype(np.float64)

    def tell(
        self, matrix: Floats, label: Bools, unit: Ints, rng: np.random.Generator
    ) -> Floats:
        """All windows have a score."""
        del label, unit, rng
        return placed(matrix[:, 0])


ATTACKERS: Final[tuple[Attacker, ...]] = (Learned(), LikelihoodRatio(), LateCells())


def folds(
    label: Bools, unit: Ints, rng: np.random.Generator
) -> Iterator[tuple[Bools, Bools]]:
    """Masks of training and of test windows; each fold has its part of either class.

    ValueError: a class is in fewer than two units.
    """
    units, inverse = np.unique(unit, return_inverse=True)
    number = max(2, min(FOLDS, len(label) // FOLD_WINDOWS))
    busy, idle = (
        np.bincount(inverse[kind], minlength=len(units)) > 0 for kind in (label, ~label)
    )
    if min(busy.sum(), idle.sum()) < 2:
        raise ValueError("two blocks of each kind are wanted")
    fold = np.zeros(len(units), np.int64)
    for kind in (idle & ~busy, busy & ~idle, idle & busy):
        mine = rng.permutation(np.flatnonzero(kind))
        fold[mine] = np.arange(len(mine)) % number
    for each in range(1, int(fold.max()) + 1):
        yield (fold < each)[inverse], (fold == each)[inverse]


def placed(score: Floats) -> Floats:
    """Scores as their ranks, from 0 to 1."""
    found: Floats = (ranks(score) - 0.5) / len(score)
    return found


def _scatter(terms: Floats) -> Floats:
    away = terms - terms.mean(axis=0)
    found: Floats = away.T @ away
    return found


def _terms(windows: Windows, side: int, rng: np.random.Generator) -> Floats:
    gaps = _in_periods(windows, side)
    delay = known(windows.of(side, "ack_delay"))
    clock = windows.trace.clock
    if clock in filters.SHAPES:
        shape = filters.SHAPES[clock]
        late = filters.lateness_bins()
        share = filters.fit(gaps, late, shape, rng)
        cells = filters.expected(gaps, late, share, shape)
        missing = _missing(gaps, shape)
    else:
        seen = phases(windows, side) if clock in GRIDS else gaps
        cells = shares(seen, edges(seen))
        missing = np.maximum(np.rint(gaps) - 1, 0).sum(axis=1)
    return np.column_stack(
        [
            cells,
            shares(delay, edges(delay)),
            windows.of(side, "acks").mean(axis=1),
            gaps.sum(axis=1),
            missing,
        ]
    )


def _in_periods(windows: Windows, side: int) -> Floats:
    return np.maximum(windows.gaps(side) * windows.trace.rate, filters.GAP_MIN)


def _missing(gaps: Floats, shape: int) -> Floats:
    """Score of gaps that hold two: Erlang of twice the shape over the clock's own."""
    ratio = np.ones_like(gaps)
    for step in range(shape, 2 * shape):
        ratio *= shape * gaps / step
    score: Floats = ((ratio - 1) / (1 + DROP_SHARE * (ratio - 1))).sum(axis=1)
    return score
