# SPDX-License-Identifier: MIT
"""How long the message is that went over a link.

The attacker is told when each message was handed in, and so has its first WINDOW cells
and what came before; he infers its octets from

    excess      the first write that is no command, and all octets of those periods
    learned     gradient boosting (squared error of the logarithm) over that, gaps, ACKs
                and ACK delays of both sides, by fits that never saw the message's cells

and is judged by Spearman's rho of what he infers and what is true.  Controls: a world
without cover; sizes shuffled.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
from sklearn.ensemble import HistGradientBoostingRegressor
from threadpoolctl import threadpool_limits

from mesh.audit.figures import Control, Figure
from mesh.audit.matching import COMMAND, octets
from mesh.audit.statistics import SURE, bootstrap, spearman
from mesh.audit.trace import SIDES, Event, Floats, Ints, Trace

BOUND: Final = 0.1
BROKEN: Final = 0.95
WINDOW: Final = 64
"""Cells after a message was handed in."""
FOLDS: Final = 5
DRAWS: Final = 400
SEEDS: Final = 1 << 31


@dataclass(frozen=True)
class Sized:
    """A link, and the messages that went over it."""

    trace: Trace
    at: Floats
    """When each was handed in, in order."""
    size: Floats
    """Octets."""

    @property
    def block(self) -> Ints:
        """Messages of the same WINDOW periods see the same cells."""
        number: Ints = np.floor(self.at * self.trace.rate / WINDOW).astype(np.int64)
        return number


def sized(trace: Trace, events: Sequence[Event], place: str) -> Sized:
    """Take out of the truth what a place handed in."""
    mine = sorted((e.at, e.size) for e in events if e.place == place and e.what == "in")
    at, size = np.array(mine, float).reshape(-1, 2).T
    begin, end = trace.of(0)["at"][[0, -1]]
    inside = (at > begin) & (at < end - WINDOW / trace.rate)
    return Sized(trace, at[inside], size[inside])


def excess(world: Sized, rng: np.random.Generator) -> Floats:
    """Infer by the first write that is no command, and by all octets soon after."""
    del rng
    rows = world.trace.of(0)
    sent = octets(rows)
    sums = np.concatenate([np.zeros(1), np.cumsum(sent)])
    first = np.searchsorted(rows["at"], world.at)
    last = np.searchsorted(rows["at"], world.at + WINDOW / 4 / world.trace.rate)
    writes = np.append(np.flatnonzero(sent >= COMMAND), len(rows))
    sent = np.append(sent, 0.0)
    write = sent[writes[np.searchsorted(writes, first)]]
    score: Floats = write + 1e-3 * (sums[last] - sums[first])
    return score


def _table(world: Sized, rng: np.random.Generator) -> Floats:
    parts = [excess(world, rng)]
    for side in SIDES:
        rows = world.trace.of(side)
        index = np.searchsorted(rows["at"], world.at)[:, None] + np.arange(WINDOW)
        there = rows[np.clip(index, 0, len(rows) - 1)]
        for cells in (4, 16, WINDOW):
            some = there[:, :cells]
            gaps = np.nan_to_num(some["gap"]) * world.trace.rate
            size = octets(some)
            parts += [
                gaps.mean(axis=1), gaps.min(axis=1), gaps.max(axis=1),
                np.nan_to_num(some["ack_delay"]).mean(axis=1),
                some["acks"].sum(axis=1), size.sum(axis=1), size.max(axis=1),
            ]  # fmt: skip
    return np.stack(parts, axis=1)


def learned(world: Sized, rng: np.random.Generator) -> Floats:
    """Infer by gradient boosting, each message by a fit without its neighbours."""
    table, target = _table(world, rng), np.log(world.size)
    blocks, inverse = np.unique(world.block, return_inverse=True)
    fold = rng.permutation(np.arange(len(blocks)) % FOLDS)[inverse]
    score = np.zeros(len(target))
    for number in np.unique(fold):
        test = fold == number
        model = HistGradientBoostingRegressor(
            learning_rate=0.05, max_iter=100, max_leaf_nodes=6, min_samples_leaf=10,
            early_stopping=False, random_state=int(rng.integers(SEEDS)),
        )  # fmt: skip
        with threadpool_limits(1):
            model.fit(table[~test], target[~test])
            # A fold's mean is of the others' sizes: it goes against its own.
            score[test] = model.predict(table[test]) - target[~test].mean()
    return score


Guess: TypeAlias = Callable[[Sized, np.random.Generator], Floats]
GUESSES: Final[dict[str, Guess]] = {"excess": excess, "learned": learned}


def figures(
    world: Sized,
    control: Sized,
    rng: np.random.Generator,
    *,
    name: str = "",
    guesses: Sequence[str] = ("excess", "learned"),
) -> list[Figure]:
    """Infer in one world, and for control in one without cover."""
    found = []
    for guess in guesses:
        how = GUESSES[guess]
        score = how(world, rng)
        value, upper = _rho(score, world.size, world.block, rng)
        broken, _ = _rho(how(control, rng), control.size, control.block, rng)
        null, limit = _rho(score, rng.permutation(world.size), world.block, rng)
        controls = (
            Control("no cover", broken, f">= {BROKEN}", broken >= BROKEN),
            Control("sizes shuffled", null, "0", null < 4 / len(score) ** 0.5),
        )
        del limit
        found.append(
            Figure(
                "size", guess, value, upper, BOUND, "rho", len(score), "", controls,
                world=name, rate=world.trace.rate,
            )
        )  # fmt: skip
    return found


def _rho(
    score: Floats, size: Floats, block: Ints, rng: np.random.Generator
) -> tuple[float, float]:
    """Rho without its sign, and its limit; what is the same for all says nothing."""
    value = spearman(score, size)
    if np.isnan(value):
        return 0.0, 0.0
    drawn = bootstrap(lambda some: spearman(score[some], size[some]), block, rng, DRAWS)
    low, high = np.quantile(drawn, [1 - SURE, SURE])
    return abs(value), max(abs(value), float(high), float(-low))
