# SPDX-License-Identifier: MIT
"""Matching: a message comes in by one link and goes out by the next; who sees that.

    link 1 ---> place ---> link 2      `out` at the place: link 1 has brought it, t1
                                       `in` at the place: link 2 is to take it, t2

A pair of instants (t1, t2) is a message's, or it is not: then it is a message's pair,
both moved alike, to elsewhere in the same 64 cells of link 2, where no message passed.
So neither the hour, nor the load of that minute, nor the time that a place takes tells
the two apart, and what is asked is whether the wires do.  The attacker is told each pair
up to JITTER periods off, the same for both instants: a message comes when its place reads,
just behind a cell, and other gaps are seen from there than from any instant, whatever
the message does to them.  He judges by the NEAR cells before and behind, on both links
and in both directions.

    statistical   how far the two writes that are most alike are apart, and octets more
                  than usual on both links
    learned       gradient boosting over the gaps, ACK delays, ACKs and octets there

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
APART: Final = 20.0
"""Periods that it lies from any message's."""
JITTER: Final = 3.0
"""Periods by which an attacker is told an instant wrongly, at most."""
NEAR: Final = 8
"""Cells on each side of an instant."""
ALL: Final = 10
"""Column of a summary: octets of the first side's cells."""
COMMAND: Final = 1024
"""Octets: what is shorter is no message."""
MORE: Final = 1e-5
"""Of octets more than usual, beside likeness: they decide where all writes are alike."""
NOTHING: Final = 9.0
"""How unlike two links are where one of them has no message."""
TRIES: Final = 8
"""For a place where no message passed; in a full minute there is none."""
FALSE_RATE: Final = 1e-3
AUC_BOUND: Final = 0.52
TPR_BOUND: Final = 0.002
AUC_BROKEN: Final = 0.99
TPR_BROKEN: Final = 0.9
PLANTED: Final = (0.001, 0.005, 0.02)
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
    width = JITTER / world.second.rate
    found: list[tuple[float, float, bool, int]] = []
    for t1, t2 in zip(world.arrived, world.left, strict=True):
        number = int(np.searchsorted(grid, t2, side="right"))
        if not 0 < number < len(grid):
            continue
        drawn = rng.uniform(grid[number - 1], grid[number], negatives * TRIES)
        free = drawn[_free(world, drawn)][:negatives]
        found.extend((t1 + at - t2, at, False, number) for at in free)
        if len(free):
            told = rng.uniform(-width, width)
            found.append((t1 + told, t2 + told, True, number))
    rng.shuffle(found)  # in no order: who makes folds looks at a block's first pair
    one, two, label, block = np.array(found, float).reshape(-1, 4).T
    return Pairs(one, two, label.astype(bool), block.astype(np.int64))


def _free(world: Seen, at: Floats) -> Bools:
    """Whether no message passed near an instant."""
    after = np.searchsorted(world.left, at)
    nearest = [
        np.abs(world.left[np.clip(after - step, 0, len(world.left) - 1)] - at)
        for step in (0, 1)
    ]
    free: Bools = np.minimum(*nearest) > APART / world.second.rate
    return free


# What he sees near an instant


def octets(rows: Rows) -> Floats:
    """Octets that each row's segments carried."""
    segments = rows["segments"].astype(np.float64)
    whole = np.maximum(segments - 1, 0) * rows["first"]
    size: Floats = whole + np.where(segments > 0, rows["last"], 0)
    return size


def _summary(trace: Trace, at: Floats) -> Floats:
    """Give 12 numbers of the cells around each instant, for each side."""
    parts = []
    for side in SIDES:
        rows = trace.of(side)
        after = np.searchsorted(rows["at"], at)
        index = np.clip(after[:, None] + np.arange(-NEAR, NEAR), 0, len(rows) - 1)
        there = rows[index]
        gaps = np.nan_to_num(there["gap"]) * trace.rate
        delay = np.nan_to_num(there["ack_delay"])
        size = octets(there)
        parts += [
            *np.quantile(gaps, (0, 0.25, 0.5, 0.75, 1), axis=1),
            gaps.std(axis=1),
            *np.quantile(delay, (0.5, 1), axis=1),
            there["acks"].sum(axis=1),
            there["again"].sum(axis=1),
            size.sum(axis=1),
            size.max(axis=1),
        ]
    return np.stack(parts, axis=1)


def _writes(trace: Trace, at: Floats) -> Floats:
    """Octets of what the first side sent within NEAR periods; nan: less, and commands.

    An SMTP session without cover is half a dozen writes at once: they are not counted,
    or a message at the end of one would be out of sight.
    """
    rows = trace.of(0)
    size = octets(rows)
    when, size = rows["at"][size >= COMMAND], size[size >= COMMAND]
    if not len(size):
        return np.full((len(at), 1), np.nan)
    index = np.searchsorted(when, at)[:, None] + np.arange(-NEAR, NEAR)
    index = np.clip(index, 0, len(size) - 1)
    near = np.abs(when[index] - at[:, None]) <= NEAR / trace.rate
    return np.where(near, size[index], np.nan)


def unlike(world: Seen, pairs: Pairs) -> Floats:
    """Say how far the two writes on either link that are most alike are apart: a share.

    A place takes something off a message, or nothing: what left is not the larger one.
    """
    one, two = _writes(world.first, pairs.first), _writes(world.second, pairs.second)
    less = one[:, :, None] - two[:, None, :]
    apart = np.where(less < 0, np.nan, less / one[:, :, None])
    least: Floats = np.nan_to_num(apart, nan=NOTHING).min(axis=(1, 2))
    return least


def near(world: Seen, pairs: Pairs) -> Floats:
    """Give what an attacker has of each pair."""
    one = _summary(world.first, pairs.first)
    two = _summary(world.second, pairs.second)
    return np.column_stack([one, two, unlike(world, pairs)])


def statistical(world: Seen, pairs: Pairs, rng: np.random.Generator) -> Floats:
    """Score by what is alike, and more than usual, on both wires."""
    del rng
    both = [_summary(world.first, pairs.first), _summary(world.second, pairs.second)]
    more = [one[:, ALL] / max(1.0, float(one[:, ALL].mean())) for one in both]
    score: Floats = MORE * np.minimum(*more) - unlike(world, pairs)
    return score


def learned(world: Seen, pairs: Pairs, rng: np.random.Generator) -> Floats:
    """Score by gradient boosting, each pair by a fit that saw nothing of its cells."""
    return Learned().tell(near(world, pairs), pairs.label, pairs.block, rng)


Matcher: TypeAlias = Callable[[Seen, Pairs, np.random.Generator], Floats]
MATCHERS: Final[dict[str, Matcher]] = {"statistical": statistical, "learned": learned}


def followed(
    world: Seen, rng: np.random.Generator, shrinks: int = 0
) -> tuple[float, float]:
    """Share of messages that size alone follows over one place; and by chance alone.

    Of what link 2 carries within WINDOW periods after t1 he takes the write whose octets,
    and `shrinks` more (what a remailer takes off), come nearest to the largest one just
    before t1; of equals, one by chance.  Right: within NEAR periods after t2.
    """
    before, after = world.first.of(0), world.second.of(0)
    before, after = before[octets(before) > 0], after[octets(after) > 0]
    sizes = octets(before), octets(after)
    period = 1 / world.second.rate
    found, chance = [], []
    for t1, t2 in zip(world.arrived, world.left, strict=True):
        a, b = np.searchsorted(before["at"], [t1 - JITTER * period, t1])
        c, d = np.searchsorted(after["at"], [t1, t1 + WINDOW * period])
        if a == b or c == d:
            continue
        right = (after["at"][c:d] >= t2) & (after["at"][c:d] < t2 + NEAR * period)
        away = np.abs(sizes[1][c:d] + shrinks - sizes[0][a:b].max())
        found.append(right[rng.choice(np.flatnonzero(away == away.min()))])
        chance.append(right.mean())
    return float(np.mean(found)), float(np.mean(chance))


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
        hits = tpr_at(score, pairs.label, FALSE_RATE)
        count = int(
            (pairs.label & ~np.isnan(score)).sum()
        )  # who only trained says nothing
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
