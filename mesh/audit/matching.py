# SPDX-License-Identifier: MIT
"""Matching: a message comes in by one link and goes out by the next; who sees that.

    link 1 ---> place ---> link 2      `out` at the place: link 1 has brought it, t1
                                       `in` at the place: link 2 is to take it, t2

A pair of instants (t1, t2) is a message's, or it is not: then it is a message's pair,
both moved alike, to elsewhere in the same 64 cells of link 2, where no message passed.
So neither the hour, nor the load of that minute, nor the time that a place takes tells
the two apart, and what is asked is whether the wires do.  Each pair is judged by the
NEAR cells before and behind its instants, on both links and in both directions.

    statistical   octets more than usual before t1 and after t2, the smaller of the two,
                  and how the gaps before t1 and after t2 go together
    learned       gradient boosting over each near cell's time from the instant, its
                  segments, last segment and ACK delay

Figures: AUC, and the share of messages found where one in a thousand others is taken
for one.  Controls: the same on a world without cover; labels shuffled; and the least
delay of the cell next to an instant that he would have found.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final, TypeAlias

import numpy as np

from mesh.audit.attackers import Learned
from mesh.audit.figures import Control, Figure
from mesh.audit.statistics import measured, roc, share_upper, tpr_at
from mesh.audit.trace import SIDES, Bools, Event, Floats, Ints, Rows, Trace, by_time

WINDOW: Final = 64
"""Cells within which a pair that is no message's lies from the message's."""
NEGATIVES: Final = 7
"""For each message: 14,000 make the 1e5 that a rate of one in a thousand needs."""
TRIES: Final = 4
"""For a place where no message passed; in a full minute there is none."""
APART: Final = 4.0
"""Periods that it lies from any message's."""
NEAR: Final = 4
FALSE_RATE: Final = 1e-3
AUC_BOUND: Final = 0.52
TPR_BOUND: Final = 0.002
AUC_BROKEN: Final = 0.99
TPR_BROKEN: Final = 0.9
PLANTED: Final = (0.0002, 0.001, 0.005)
"""Seconds by which a cell next to a message's instant is late."""


@dataclass(frozen=True)
class Seen:
    """Two wires with a place between them, and what passed through it."""

    first: Trace
    second: Trace
    arrived: Floats
    """Of each message, when link 1 had brought it, in order."""
    left: Floats
    """When link 2 was to take it."""


@dataclass(frozen=True)
class Pairs:
    """Instants on both wires, and whether they are a message's."""

    first: Floats
    second: Floats
    label: Bools
    block: Ints
    """The 64 cells of link 2 in which the message left."""


def seen(first: Trace, second: Trace, events: Sequence[Event], place: str) -> Seen:
    """Take a place's messages out of the truth: those that came and went on."""
    came = {e.ident: e.at for e in events if e.place == place and e.what == "out"}
    went = {e.ident: e.at for e in events if e.place == place and e.what == "in"}
    both = sorted((came[ident], went[ident]) for ident in came.keys() & went.keys())
    arrived, left = np.array(both, float).reshape(-1, 2).T
    return Seen(first, second, arrived, left)


def pairs_of(
    world: Seen, rng: np.random.Generator, negatives: int = NEGATIVES
) -> Pairs:
    """Draw the pairs that are no message's; messages without any are left out."""
    grid = world.second.of(0)["at"][::WINDOW]
    near = APART / world.second.rate
    found: list[tuple[float, float, bool, int]] = []
    for t1, t2 in zip(world.arrived, world.left, strict=True):
        number = int(np.searchsorted(grid, t2, side="right"))
        if not 0 < number < len(grid):
            continue
        drawn = rng.uniform(grid[number - 1], grid[number], negatives * TRIES)
        after = np.searchsorted(world.left, drawn)
        gaps = [
            np.abs(world.left[np.clip(after - step, 0, len(world.left) - 1)] - drawn)
            for step in (0, 1)
        ]
        free = drawn[np.minimum(*gaps) > near][:negatives]
        found.extend((t1 + at - t2, at, False, number) for at in free)
        if len(free):
            found.append((t1, t2, True, number))
    first, second, label, block = np.array(found, float).reshape(-1, 4).T
    return Pairs(first, second, label.astype(bool), block.astype(np.int64))


# What he sees near an instant


def octets(rows: Rows) -> Floats:
    """Octets that each row's segments carried."""
    segments = rows["segments"].astype(np.float64)
    whole = np.maximum(segments - 1, 0) * rows["first"]
    size: Floats = whole + np.where(segments > 0, rows["last"], 0)
    return size


def _near(trace: Trace, at: Floats) -> Floats:
    parts = []
    for side in SIDES:
        rows = trace.of(side)
        after = np.searchsorted(rows["at"], at)
        index = after[:, None] + np.arange(-NEAR, NEAR)
        there = rows[np.clip(index, 0, len(rows) - 1)]
        parts += [
            (there["at"] - at[:, None]) * trace.rate,
            there["segments"].astype(np.float64),
            there["last"].astype(np.float64),
            there["ack_delay"],
        ]
    return np.concatenate(parts, axis=1)


def near(world: Seen, pairs: Pairs) -> Floats:
    """Give what the learned attacker has of each pair."""
    return np.concatenate(
        [_near(world.first, pairs.first), _near(world.second, pairs.second)], axis=1
    )


def _around(trace: Trace, at: Floats, *, before: bool) -> tuple[Floats, Floats]:
    """Octets within NEAR periods on one side of the instants; and the gaps there."""
    rows = trace.of(0)
    sums = np.concatenate([np.zeros(1), np.cumsum(octets(rows))])
    width = NEAR / trace.rate
    begin, end = (at - width, at) if before else (at, at + width)
    edges = [np.searchsorted(rows["at"], edge) for edge in (begin, end)]
    first = edges[1] - NEAR if before else edges[0]
    index = np.clip(first[:, None] + np.arange(NEAR), 0, len(rows) - 1)
    return sums[edges[1]] - sums[edges[0]], np.nan_to_num(rows["gap"][index])


def statistical(world: Seen, pairs: Pairs, rng: np.random.Generator) -> Floats:
    """Score by what is more than usual on both wires, and goes together."""
    del rng
    size1, gaps1 = _around(world.first, pairs.first, before=True)
    size2, gaps2 = _around(world.second, pairs.second, before=False)
    usual = [max(1.0, float(np.mean(size))) for size in (size1, size2)]
    away = [gaps - gaps.mean(axis=1, keepdims=True) for gaps in (gaps1, gaps2)]
    norm = np.sqrt((away[0] ** 2).sum(axis=1) * (away[1] ** 2).sum(axis=1))
    together = (away[0] * away[1]).sum(axis=1) / np.maximum(norm, 1e-12)
    score: Floats = np.minimum(size1 / usual[0], size2 / usual[1]) + 0.1 * together
    return score


def learned(world: Seen, pairs: Pairs, rng: np.random.Generator) -> Floats:
    """Score by gradient boosting, each pair by a fit that did not see it."""
    alone = np.arange(len(pairs.label), dtype=np.int64)
    return Learned().tell(near(world, pairs), pairs.label, alone, rng)


Matcher: TypeAlias = Callable[[Seen, Pairs, np.random.Generator], Floats]
MATCHERS: Final[dict[str, Matcher]] = {"statistical": statistical, "learned": learned}


# What is said of it


def figures(
    world: Seen,
    control: Seen,
    rng: np.random.Generator,
    *,
    name: str = "",
    matchers: Sequence[str] = ("statistical", "learned"),
) -> list[Figure]:
    """Match in one world, and for control in one without cover; two figures each."""
    pairs, plain = pairs_of(world, rng), pairs_of(control, rng)
    found = []
    for matcher in matchers:
        how = MATCHERS[matcher]
        score, broken = how(world, pairs, rng), how(control, plain, rng)
        smallest = _smallest(how, world, rng)
        curve = roc(score, pairs.label)
        one = measured(score, pairs.label, pairs.block, rng)
        other = measured(broken, plain.label, plain.block, rng).value
        mixed = replace(pairs, label=rng.permutation(pairs.label))
        null = measured(how(world, mixed, rng), mixed.label, mixed.block, rng)
        controls = (
            Control("no cover", other, f">= {AUC_BROKEN}", other >= AUC_BROKEN),
            Control("labels shuffled", null.signed, "0.5", null.null),
        )
        found.append(
            Figure(
                "matching, AUC", matcher, one.value, one.upper, AUC_BOUND, "AUC",
                int(pairs.label.sum()), smallest, controls, roc=curve, world=name,
                rate=world.second.rate,
            )
        )  # fmt: skip
        hits, count = tpr_at(score, pairs.label, FALSE_RATE), int(pairs.label.sum())
        other = tpr_at(broken, plain.label, FALSE_RATE)
        broke = Control("no cover", other, f">= {TPR_BROKEN}", other >= TPR_BROKEN)
        found.append(
            Figure(
                "matching, TPR at FPR 1e-3", matcher, hits,
                share_upper(round(hits * count), count), TPR_BOUND, "rate", count,
                smallest, (broke,), world=name, rate=world.second.rate,
            )
        )  # fmt: skip
    return found


def planted(world: Seen, seconds: float, rng: np.random.Generator) -> Seen:
    """Instants by chance, as many as messages; the next cell of each is late."""
    begin, end = world.second.of(0)["at"][[0, -1]]
    at = np.sort(rng.uniform(begin, end, len(world.left)))
    first, second = (_late(one, at, seconds) for one in (world.first, world.second))
    return Seen(first, second, at, at)


def _late(trace: Trace, at: Floats, seconds: float) -> Trace:
    mine, other = trace.of(0).copy(), trace.of(1)
    index = np.unique(np.searchsorted(mine["at"], at))
    index = index[index < len(mine)]
    mine["at"][index] += seconds
    mine["at"] = np.maximum.accumulate(mine["at"])
    mine["gap"] = np.diff(mine["at"], prepend=np.nan)
    return trace.with_rows(by_time(np.concatenate([mine, other])))


def _smallest(how: Matcher, world: Seen, rng: np.random.Generator) -> str:
    smallest = ""
    for seconds in reversed(PLANTED):
        leaky = planted(world, seconds, rng)
        pairs = pairs_of(leaky, rng)
        score = how(leaky, pairs, rng)
        if not measured(score, pairs.label, pairs.block, rng).found:
            break
        smallest = f"{1e3 * seconds:g} ms late"
    return smallest
