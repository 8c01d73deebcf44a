# SPDX-License-Identifier: MIT
"""What is promised, and what fewer data than that can show.

    figure                                      bound    with at least
    idle or busy, AUC, 32 and 128 cells         0.52     6,200 windows a class
    the same, 1,024 and 3,600 cells             0.55     1,000
    mutual information, bit a window            0.001    6,200; 0.006 with 1,000
    message to message, AUC                     0.52     14,000 messages
    the same, true positives at 1e-3 false      0.002    14,000
    size, Spearman's rho                        0.1      860
    probes, AUC                                 0.52     5,400 probes
    port 25, entropy over the pool's own        >= 0.9   2,000 messages

Each bound is a limit at 95 %, and a limit from n observations of nothing at all lies above
chance by a few standard errors: those shrink with the root of n, and a mutual information,
which is about the square of such a distance, with n (a little faster, since few windows
lie in few blocks, whose windows depend on each other).  So a smaller run is held to the same
number of standard errors, and a larger one to the same bound: a small run's bound is wide,
and that is said beside it by the smallest leak that it found.
"""

import math
from typing import Final, NamedTuple

from mesh.audit.statistics import share_upper


class Promise(NamedTuple):
    """A bound, and the number of observations for which it is given."""

    bound: float
    enough: int
    chance: float = 0.5
    """Where nothing is: a bound comes down to here with more and more observations."""
    power: float = 0.5
    """With which the distance from there shrinks."""


AUC_SHORT: Final = Promise(0.52, 6_200)
AUC_LONG: Final = Promise(0.55, 1_000)
LONG_CELLS: Final = 1_024
"""From so many cells a window is long."""
INFORMATION: Final = Promise(0.001, 6_200, 0.0, 1.1)
INFORMATION_LONG: Final = Promise(0.006, 1_000, 0.0, 1.1)
MATCHING: Final = Promise(0.52, 14_000)
MATCHING_RATE: Final = Promise(0.002, 14_000, 0.001)
SIZE: Final = Promise(0.1, 860, 0.0)
PROBES: Final = Promise(0.52, 5_400)
ENTROPY: Final = 0.9
"""Of what the pool promises; from below, whatever the number of messages."""


def bound_of(promise: Promise, count: int) -> float:
    """The bound for so many observations; infinite for none."""
    if count <= 0:
        return math.inf
    missing = max(promise.enough / count, 1.0)
    distance = promise.bound - promise.chance
    return promise.chance + distance * math.pow(missing, promise.power)


def rate_bound(count: int) -> float:
    """The bound on finding messages at FALSE_RATE, for so many of them.

    Found by chance are so few that no root of theirs says how they spread: a small run
    may find as many as chance does, and one and a half errors more.
    """
    if count >= MATCHING_RATE.enough:
        return MATCHING_RATE.bound
    by_chance = count * MATCHING_RATE.chance
    most = math.ceil(by_chance + 1.5 * math.sqrt(by_chance))
    return max(MATCHING_RATE.bound, share_upper(most, count))


def auc_promise(cells: int) -> Promise:
    """What is promised for windows of so many cells."""
    return AUC_LONG if cells >= LONG_CELLS else AUC_SHORT


def information_promise(cells: int) -> Promise:
    """The same in bits."""
    return INFORMATION_LONG if cells >= LONG_CELLS else INFORMATION
