# SPDX-License-Identifier: MIT
"""How late cells were, as far as their gaps tell: a hidden chain and its exact filter.

A gap is g = G + l - l', where G is the clock's own (`renewal`, `poisson`: Erlang of
mean T, whose draws nobody knows) and l, l' how late this cell and the one before left.
Latenesses are drawn from a few bins, each cell's by itself.  So the gaps are a hidden
Markov model: the state is the bin, and the step from bin k to bin j has the density

    p_j f(g + l_k - l_j)        f(x) = x^(shape-1) exp(-shape x / T), x > 0

`forward` is the exact likelihood of gaps under several p at once; `expected` is how
many cells lie in each bin, given all gaps of a chain (forward and backward: Rabiner,
Proceedings of the IEEE 77, 1989); `fit` is p by expectation and maximization over those.

All times here are in T.  The exponential's parts in l are put where they belong and the
part in g, which is the same for each p, is left out.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from mesh.audit.trace import Floats
from mesh.core.clock import ERLANG_SHAPE, Clock

SHAPES: Final[Mapping[str, int]] = {
    Clock.RENEWAL.name.lower(): ERLANG_SHAPE,
    Clock.POISSON.name.lower(): 1,
}
"""Clocks whose gaps do not depend on each other, by their names in node.toml."""
FINEST: Final = 512
"""The smallest lateness of an attacker's bins is T / 512."""
BINS: Final = 12
"""None, and doublings from the finest to 2 T."""
CHAIN: Final = 32
"""Gaps that `expected` takes as one: what lies beyond tells nothing of a cell's lateness."""
CHAINS: Final = 2048
"""Side by side: their densities stay in the processor's cache."""
GAP_MIN: Final = 1e-6
"""For a gap of nothing, in T (two cells in one read of the capture's clock): with a gap
of zero and no lateness a chain would be impossible."""
FIT_CHAINS: Final = 2000
FIT_STEPS: Final = 10


def lateness_bins() -> Floats:
    """Lateness of an attacker's bins, in T."""
    doubled = 2.0 ** np.arange(BINS - 1) / FINEST
    return np.concatenate([np.zeros(1), doubled])


def prior() -> Floats:
    """Shares of an attacker's bins before he has seen a gap: each half of the one below."""
    share: Floats = 0.5 ** np.arange(BINS, dtype=np.float64)
    share = share / share.sum()
    return share


def later(late: Floats, share: Floats, mean: float) -> Floats:
    """Shares of the bins when each cell is later by an exponential of this mean, in T.

    A bin reaches to the geometric mean with the next one.
    """
    between = np.sqrt(late[1:-1] * late[2:])
    edges = np.concatenate([np.zeros(1), late[1:2] / 2, between, np.full(1, np.inf)])
    more = np.maximum(edges[None, :] - late[:, None], 0.0)
    moved: Floats = share @ np.diff(-np.exp(-more / mean), axis=1)
    return moved


def density(gaps: Floats, late: Floats, shape: int) -> Floats:
    """Densities (from bin, to bin, gap), without what is common to all bins."""
    shift = late[:, None] - late[None, :]
    beyond = gaps[None, None, :] + shift[:, :, None]
    if shape == 1:
        power = (beyond > 0).astype(gaps.dtype)
    else:
        np.maximum(beyond, 0, out=beyond)
        power = beyond.copy()
        for _ in range(shape - 2):
            power *= beyond
    power *= np.exp(-shape * shift).astype(gaps.dtype)[:, :, None]
    found: Floats = power
    return found


def densities(gaps: Floats, late: Floats, shape: int) -> list[Floats]:
    """Densities of each gap of chains (chain, gap); they cost more than what they are for."""
    return [density(column, late, shape) for column in gaps.T]


def forward(gaps: Floats, late: Floats, shares: Floats, shape: int) -> Floats:
    """Log likelihood (p, window) of windows of gaps (window, gap) under each p (p, bin).

    Up to a term that is the same for each p.
    """
    alpha = np.repeat(shares[:, :, None], len(gaps), axis=2)
    total = np.zeros((len(shares), len(gaps)))
    for column in gaps.T:
        steps = density(column, late, shape)
        for number, share in enumerate(shares):
            new = np.einsum("kw,kjw->jw", alpha[number], steps) * share[:, None]
            norm = new.sum(axis=0)
            total[number] += np.log(norm)
            alpha[number] = new / norm
    return total


def expected(gaps: Floats, late: Floats, share: Floats, shape: int) -> Floats:
    """How many cells of each window lie in each bin: (window, bin).

    A window is cut into chains, so that many go side by side.
    """
    windows, width = gaps.shape
    chain = min(CHAIN, width)
    whole = width // chain * chain
    chains = gaps[:, :whole].reshape(-1, chain)
    counts = np.concatenate(
        [
            _posterior(densities(chains[at : at + CHAINS], late, shape), share)
            for at in range(0, len(chains), CHAINS)
        ]
    )
    sums: Floats = counts.reshape(windows, -1, len(late)).sum(axis=1)
    if whole < width:
        sums = sums + _posterior(densities(gaps[:, whole:], late, shape), share)
    return sums


def _posterior(steps: Sequence[Floats], share: Floats) -> Floats:
    """Forward and backward over chains' densities: expected counts (chain, bin)."""
    each = share[:, None]
    ahead = [np.repeat(each, steps[0].shape[2], axis=1)]
    for step in steps:
        new = np.einsum("kw,kjw->jw", ahead[-1], step) * each
        ahead.append(new / new.sum(axis=0))
    back = np.ones_like(ahead[0])
    counts = ahead[-1].copy()
    for number in range(len(steps) - 1, -1, -1):
        back = np.einsum("kjw,jw->kw", steps[number], back * each)
        back /= back.sum(axis=0)
        both = ahead[number] * back
        counts += both / both.sum(axis=0)
    found: Floats = counts.T
    return found


def fit(gaps: Floats, late: Floats, shape: int, rng: np.random.Generator) -> Floats:
    """Shares of an attacker's bins that explain windows of gaps; from FIT_CHAINS chains of them.

    It begins with a little in each bin, and no bin ends empty: an empty one would
    never be found in a window.
    """
    chain = min(CHAIN, gaps.shape[1])
    chains = gaps[:, : gaps.shape[1] // chain * chain].reshape(-1, chain)
    some = rng.permutation(len(chains))[:FIT_CHAINS]
    chains = chains[some]
    least = 0.01 / BINS
    share, steps = prior(), densities(chains, late, shape)
    for _ in range(FIT_STEPS):
        share = _posterior(steps, share).sum(axis=0)
        share = np.maximum(share / share.sum(), least)
        share = share / share.sum()
    return share
