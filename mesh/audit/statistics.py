# SPDX-License-Identifier: MIT
"""How well a score tells busy from idle, and how sure that is.

    auc                 the chance that a busy window's score is above an idle one's, ties
                        counting half: Mann and Whitney's U over n m (1947).  0.5: no
                        better than a coin.  0.4 is a find as 0.6 is: `two_sided`
    measured            the same with its error and one-sided 95 % limit, by bootstrap
    information         bits a window: the score in BINS equal parts against the label
    roc, tpr_at         true positives over false positives
    spearman            rank correlation, ties at their mean rank
    share_upper         limit of a share k of n (Clopper and Pearson 1934)

A score that is nan was not given: that window is left out.

The bootstrap draws runs of neighbouring blocks again with replacement, the last block
being the first one's neighbour: Kuensch, Annals of Statistics 17 (1989); circular after
Politis and Romano (1992).  A run has the cube root of the blocks' number.  So windows of
one block may depend on each other, and blocks on their neighbours.

The plug-in estimate of information is too high by about (cells of the table that are
free) / 2 N nats: Miller 1955, "Note on the bias of information estimates"; it is taken
off.  Its limit: 2 N I is noncentral chi-square under the truth I, so the largest truth
that makes what was seen no rarer than 1 in 20 is the limit; less than the null's median
counts as that, so that luck does not lower it.  Where blocks make the null
(labels permuted among blocks) wider than the chi-square, N is shortened until they agree
(Rao and Scott 1981).
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import betaincinv, chndtrinc

from mesh.audit.trace import Bools, Floats, Ints

DRAWS: Final = 1000
"""Bootstrap samples: the 95 % limit moves by a thirtieth of an error between runs."""
SURE: Final = 0.95
BINS: Final = 4
"""Parts of a score: an eighth of a weak leak's information is lost, and the noise of
three free cells stays below the bounds that are promised."""
FOUND: Final = 2.33
"""Standard errors above one half that count as found: one in 100 by chance."""
NULL: Final = 3.3
"""Standard errors that a null may lie from one half: one in 1,000 does by chance."""
PERMUTATIONS: Final = 400
CHUNK: Final = 100
"""Bootstrap samples at a time, for the memory's sake."""


def ranks(values: ArrayLike) -> Floats:
    """Ranks from 1; ties have their mean rank."""
    _, inverse, counts = np.unique(
        np.asarray(values), return_inverse=True, return_counts=True
    )
    ends = np.cumsum(counts)
    mean: Floats = (ends - (counts - 1) / 2)[inverse]
    return mean


def auc(score: Floats, label: Bools) -> float:
    """Give the AUC as it is, below one half too; nan without both classes."""
    label, score = label[~np.isnan(score)], score[~np.isnan(score)]
    busy = int(np.count_nonzero(label))
    idle = len(label) - busy
    if not busy or not idle:
        return math.nan
    above = float(ranks(score)[label].sum()) - busy * (busy + 1) / 2
    return above / (busy * idle)


def two_sided(value: float) -> float:
    """The AUC of whoever may turn his score around."""
    return 0.5 + abs(value - 0.5)


def spearman(left: Floats, right: Floats) -> float:
    """Spearman's rho (1904): the correlation of ranks; nan where one side is constant."""
    a, b = ranks(left) - (len(left) + 1) / 2, ranks(right) - (len(right) + 1) / 2
    norm = math.sqrt(float(a @ a) * float(b @ b))
    return float(a @ b) / norm if norm else math.nan


def roc(
    score: Floats, label: Bools, points: int = 101
) -> tuple[tuple[float, float], ...]:
    """Pairs (false, true positive rate) from (0, 0) to (1, 1), at most so many."""
    false, true = _curve(score, label)
    some = np.unique(np.linspace(0, len(false) - 1, points).astype(int))
    return tuple(zip(false[some].tolist(), true[some].tolist(), strict=True))


def tpr_at(score: Floats, label: Bools, false: float) -> float:
    """Give the largest true positive rate with no more than this false positive rate."""
    falses, trues = _curve(score, label)
    return float(trues[falses <= false].max())


def _curve(score: Floats, label: Bools) -> tuple[Floats, Floats]:
    label, score = label[~np.isnan(score)], score[~np.isnan(score)]
    order = np.argsort(-score, kind="stable")
    last = np.append(np.flatnonzero(np.diff(score[order])), len(score) - 1)
    true = np.cumsum(label[order])[last]
    false = last + 1 - true
    zero = np.zeros(1)
    falses: Floats = np.concatenate([zero, false / max(1, false[-1])])
    trues: Floats = np.concatenate([zero, true / max(1, true[-1])])
    return falses, trues


def share_upper(found: int, count: int, sure: float = SURE) -> float:
    """Upper limit of a share, `found` of `count`; exact, so rather too high."""
    return 1.0 if found >= count else float(betaincinv(found + 1, count - found, sure))


# The block bootstrap


def block_weights(block: Ints, rng: np.random.Generator, draws: int) -> Iterator[Ints]:
    """How often each item comes in a bootstrap sample: arrays (samples, items)."""
    _, inverse = np.unique(block, return_inverse=True)
    blocks = int(inverse.max()) + 1
    run = max(1, round(blocks ** (1 / 3)))
    while draws > 0:
        some = min(CHUNK, draws)
        draws -= some
        starts = rng.integers(0, blocks, (some, -(-blocks // run)))
        counts = np.zeros((some, blocks), np.int64)
        np.add.at(counts, (np.arange(some)[:, None], starts), 1)
        taken = sum(np.roll(counts, shift, axis=1) for shift in range(run))
        weights: Ints = np.asarray(taken)[:, inverse]
        yield weights


def bootstrap(
    statistic: Callable[[Ints], float],
    block: Ints,
    rng: np.random.Generator,
    draws: int = DRAWS,
) -> Floats:
    """Give any statistic of bootstrap samples; it gets the chosen items' indices."""
    items = np.arange(len(block))
    values = [
        statistic(np.repeat(items, weight))
        for weights in block_weights(block, rng, draws)
        for weight in weights
    ]
    found: Floats = np.array(values)
    kept: Floats = found[~np.isnan(found)]
    return kept


def bootstrap_auc(
    score: Floats,
    label: Bools,
    block: Ints,
    rng: np.random.Generator,
    draws: int = DRAWS,
) -> Floats:
    """AUCs of bootstrap samples; those without both classes are left out."""
    given = ~np.isnan(score)
    score, label, block = score[given], label[given], block[given]
    order = np.argsort(score, kind="stable")
    firsts = np.flatnonzero(np.diff(score[order], prepend=np.nan) != 0)
    busy = label[order]
    values = []
    for weights in block_weights(block, rng, draws):
        ours = weights[:, order]
        mass = [
            np.add.reduceat(ours * side, firsts, axis=1, dtype=np.float64)
            for side in (~busy, busy)
        ]
        below = np.cumsum(mass[0], axis=1) - mass[0] / 2
        pairs = mass[0].sum(axis=1) * mass[1].sum(axis=1)
        whole = pairs > 0
        values.append((mass[1] * below).sum(axis=1)[whole] / pairs[whole])
    return np.concatenate(values)


@dataclass(frozen=True)
class Measured:
    """An AUC, and how sure it is."""

    signed: float
    """As it is: 0.4 is a find."""
    value: float
    """Two-sided."""
    error: float
    """Standard error."""
    upper: float
    """One-sided 95 % limit of the two-sided value."""
    count: int
    """Windows of the smaller class, those that only trained included."""

    @property
    def found(self) -> bool:
        """Whether this attacker tells them apart, and the way round that he learned."""
        return self.signed - 0.5 > FOUND * self.error

    @property
    def null(self) -> bool:
        """Whether this is as near to 0.5 as a coin's would be."""
        return abs(self.signed - 0.5) <= NULL * self.error


def measured(
    score: Floats,
    label: Bools,
    block: Ints,
    rng: np.random.Generator,
    draws: int = DRAWS,
) -> Measured:
    """Measure an AUC; ValueError: one class is missing."""
    value, busy = auc(score, label), int(np.count_nonzero(label))
    if math.isnan(value):
        raise ValueError("windows of both kinds are wanted")
    drawn = bootstrap_auc(score, label, block, rng, draws)
    low, high = np.quantile(drawn, [1 - SURE, SURE])
    return Measured(
        signed=value,
        value=two_sided(value),
        error=max(float(drawn.std()), math.sqrt(1 / 12) / len(label)),
        upper=max(two_sided(value), float(high), 1 - float(low)),
        count=min(busy, len(label) - busy),
    )


# Mutual information


@dataclass(frozen=True)
class Information:
    """Bits that a window's score tells of its label."""

    bits: float
    """Without the estimate's bias; may be a little below zero."""
    upper: float
    """One-sided 95 % limit."""
    null: float
    """95 % of what labels permuted among blocks give is below this, bias taken off."""
    design: float
    """How much wider the null is than with windows that do not depend on each other."""


def permuted(label: Bools, block: Ints, rng: np.random.Generator) -> Bools:
    """Labels shuffled among blocks, so that a block's windows stay together."""
    _, first, inverse = np.unique(block, return_index=True, return_inverse=True)
    shuffled: Bools = rng.permutation(label[first])[inverse]
    return shuffled


def information(
    score: Floats,
    label: Bools,
    block: Ints,
    rng: np.random.Generator,
    bins: int = BINS,
) -> Information:
    """Mutual information of the score's part and the label, bits a window."""
    given = ~np.isnan(score)
    score, label, block = score[given], label[given], block[given]
    cuts = np.quantile(score, np.linspace(0, 1, bins + 1)[1:-1])
    part = np.searchsorted(np.unique(cuts), score, side="left")
    count = len(score)
    parts = int(part.max()) + 1
    # Labels of one block are one, so a table over blocks serves every permutation.
    _, first, inverse = np.unique(block, return_index=True, return_inverse=True)
    blocks = np.zeros((len(first), parts))
    np.add.at(blocks, (inverse, part), 1)
    labels = label[first].astype(np.float64)
    seen = _table(blocks, labels)
    bits = plug_in(seen)
    bias = _bias(seen)
    nulls = np.array(
        [plug_in(_table(blocks, rng.permutation(labels))) for _ in range(PERMUTATIONS)]
    )
    design = max(1.0, float(nulls.mean()) / bias) if bias > 0 else 1.0
    free = max(1, parts - 1)
    scale = 2 * count * math.log(2) / design
    seldom = max(bits, float(np.median(nulls)))
    most = float(chndtrinc(seldom * scale, free, 1 - SURE)) if seldom > 0 else 0.0
    return Information(
        bits=bits - bias * design,
        upper=max(0.0, bits - bias * design, 0.0 if math.isnan(most) else most / scale),
        null=float(np.quantile(nulls, SURE)) - bias * design,
        design=design,
    )


def plug_in(table: NDArray[Any]) -> float:
    """Mutual information of a table of counts as it stands, bits."""
    share = table / table.sum()
    alone = share.sum(axis=0, keepdims=True) * share.sum(axis=1, keepdims=True)
    there = share > 0
    return float((share[there] * np.log2(share[there] / alone[there])).sum())


def _table(blocks: Floats, labels: Floats) -> Floats:
    busy = labels @ blocks
    return np.stack([blocks.sum(axis=0) - busy, busy])


def _bias(table: Floats) -> float:
    """Miller's correction of each of the three entropies, together, in bits."""
    cells, rows, columns = (
        int(np.count_nonzero(part))
        for part in (table, table.sum(axis=1), table.sum(axis=0))
    )
    return (cells - rows - columns + 1) / (2 * float(table.sum()) * math.log(2))
