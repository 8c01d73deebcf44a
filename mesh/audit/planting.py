# SPDX-License-Identifier: MIT
"""Leaks of known size, planted: an attacker who does not find them proves nothing.

`thrown` forgets a trace's labels and throws new ones over the same cells, for windows
of a given length with a guard between them.  The coin knows nothing of the mail, so all
that tells the classes apart is what is then planted in the first node's cells of the
windows that it calls busy:

    late      each cell leaves later by an exponential of a mean; those that a pacer sent
              in one go, TOGETHER apart at most, by the same
    stalls    some cells leave 20 ms late, and those behind them as soon as they are gone
    missing   some cells never leave
    acks      each acknowledgement comes later by a fixed time

No cell leaves before the one in front of it, and one that is caught up with leaves as soon
after it as cells of this trace do that leave in one go: no host sends two at one instant,
and an attacker who finds such a pair has found how the leak was planted.

At a load below 1 only so many of those cells have mail, a message's run of them at a
time: what is planted is in these, for a real leak would be.

With `idle_only` the coin is thrown over idle blocks alone: without a leak that is the
noise floor.  Over all of them there are as many windows as in the audit itself.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeAlias

import numpy as np

from mesh.audit.attackers import Attacker
from mesh.audit.features import cut
from mesh.audit.figures import Curve
from mesh.audit.statistics import Measured, measured, roc
from mesh.audit.trace import NO_BLOCK, SIDES, Bools, Floats, Ints, Trace, by_time

GUARD_CELLS: Final = 4
"""Between windows; and what a window may lose without being lost itself."""
STALL_SECONDS: Final = 20e-3
RUN_CELLS: Final = 4
"""Of one message: 17 kB on average (worlds.py)."""
TOGETHER: Final = 200e-6
"""Seconds: what was due when the pacer woke, it sends without a pause."""

Plant: TypeAlias = Callable[[Trace, np.random.Generator], Trace]


@dataclass(frozen=True)
class Leak:
    """One that is planted."""

    name: str
    plant: Plant


def thrown(
    trace: Trace, cells: int, rng: np.random.Generator, idle_only: bool = False
) -> Trace:
    """The same cells in new blocks of one window each, as many busy as idle.

    A new block lies within one old one.  ValueError: no old one has so many cells.
    """
    rows = trace.rows
    old = rows["block"].astype(np.int64)
    usable = (old != NO_BLOCK) & ~(rows["busy"] & idle_only)
    span = cells + GUARD_CELLS
    blocks, inverse = np.unique(old, return_inverse=True)
    place = np.zeros(len(rows), np.int64)
    held = []
    for side in SIDES:
        mine = np.flatnonzero(usable & (rows["side"] == side))
        mine = mine[np.argsort(inverse[mine], kind="stable")]
        count = np.bincount(inverse[mine], minlength=len(blocks))
        place[mine] = np.arange(len(mine)) - (np.cumsum(count) - count)[inverse[mine]]
        held.append(np.maximum(count // span, count >= cells))
    parts = np.minimum(*held)
    total = int(parts.sum())
    if total < 2:
        raise ValueError(f"no two windows of {cells} cells")
    number = place // span
    inside = usable & (number < parts[inverse])
    block = np.where(inside, (np.cumsum(parts) - parts)[inverse] + number, NO_BLOCK)
    coin = rng.permutation(np.arange(total) % 2 == 0)
    return trace.with_labels(block, inside & coin[block])


def planted(
    leak: "Leak", trace: Trace, rng: np.random.Generator, load: float = 1.0
) -> Trace:
    """A leak in the cells with mail, which are this share of those of busy windows."""
    rows = trace.rows
    if load == 1:
        return leak.plant(trace, rng)
    mail = np.repeat(rng.random(len(rows) // RUN_CELLS + 1) < load, RUN_CELLS)
    some = rows["busy"] & mail[np.cumsum(rows["side"] == 0)]
    new = leak.plant(trace.with_labels(rows["block"], some), rng)
    busy = np.unique(rows["block"][rows["busy"]])
    return new.with_labels(new.rows["block"], np.isin(new.rows["block"], busy))


def marked(trace: Trace) -> Bools:
    """The cells that a leak is planted in."""
    mine: Bools = trace.rows["busy"] & (trace.rows["side"] == 0)
    return mine


def late(mean: float, trace: Trace, rng: np.random.Generator) -> Trace:
    """Each marked cell leaves later by an exponential of this mean, seconds."""
    shift = rng.exponential(mean, len(trace.rows))
    for side in SIDES:
        mine = np.flatnonzero(trace.rows["side"] == side)
        first = np.maximum.accumulate(
            np.where(_is_first(trace, mine), np.arange(len(mine)), 0)
        )
        shift[mine] = shift[mine[first]]
    return moved(trace, np.where(marked(trace), shift, 0.0), rng)


def stalls(share: float, trace: Trace, rng: np.random.Generator) -> Trace:
    """So many of the marked cells are late by STALL_SECONDS, and hold up what follows."""
    some = marked(trace) & (rng.random(len(trace.rows)) < share)
    return moved(trace, np.where(some, STALL_SECONDS, 0.0), rng)


def missing(share: float, trace: Trace, rng: np.random.Generator) -> Trace:
    """So many of the marked cells never leave."""
    rows = trace.rows.copy()
    gone = marked(trace) & (rng.random(len(rows)) < share)
    for side in SIDES:
        mine = rows["side"] == side
        since = np.cumsum(np.nan_to_num(rows["gap"][mine]))[~gone[mine]]
        kept = mine & ~gone
        # Before the first one that is left nobody knows.
        first = np.nan if gone[mine][:1].any() else rows["gap"][mine][:1]
        rows["gap"][kept] = np.diff(since, prepend=since[:1])
        rows["gap"][np.flatnonzero(kept)[:1]] = first
    return trace.with_rows(rows[~gone])


def late_acks(seconds: float, trace: Trace, rng: np.random.Generator) -> Trace:
    """Acknowledgements of marked cells come later by this."""
    del rng
    rows = trace.rows.copy()
    rows["ack_delay"][marked(trace)] += seconds
    return trace.with_rows(rows)


def moved(trace: Trace, shift: Floats, rng: np.random.Generator) -> Trace:
    """Each cell leaves later by its shift, and none before the one in front of it."""
    rows = trace.rows.copy()
    for side in SIDES:
        mine = np.flatnonzero(rows["side"] == side)
        due = rows["at"][mine] - rows["at"][mine[0]] - _behind(trace, mine, rng)
        later = np.maximum.accumulate(due + shift[mine]) - due
        rows["at"][mine] += later
        rows["gap"][mine] += np.diff(later, prepend=0.0)
    return trace.with_rows(by_time(rows))


def _is_first(trace: Trace, mine: Ints) -> Bools:
    """Whether each of a side's cells did not leave in one go with the one before."""
    apart: Bools = np.diff(trace.rows["at"][mine], prepend=-np.inf) > TOGETHER
    return apart


def _behind(trace: Trace, mine: Ints, rng: np.random.Generator) -> Floats:
    """How long after the first cell each leaves at least, were all due at once.

    A cell that left in one go with the one before it is as far from it as it was; another
    as far as some such cell, or, where there are none, by up to TOGETHER.
    """
    gaps = np.diff(trace.rows["at"][mine], prepend=trace.rows["at"][mine[:1]])
    apart = _is_first(trace, mine)
    near = gaps[~apart] if not apart.all() else rng.random(len(gaps)) * TOGETHER
    gaps[apart] = rng.choice(near, int(apart.sum()))
    behind: Floats = np.cumsum(gaps)
    return behind


def _late(seconds: float) -> Leak:
    return Leak(f"{1e3 * seconds:g} ms late", partial(late, seconds))


LATE: Final[Sequence[Leak]] = tuple(map(_late, (50e-6, 200e-6, 1e-3, 5e-3)))
"""Graded: the first that is found is the smallest."""
OTHERS: Final[Sequence[Leak]] = (
    Leak("1 % stalls of 20 ms", partial(stalls, 0.01)),
    Leak("one cell in 10,000 missing", partial(missing, 1e-4)),
    Leak("ACKs 1 ms late", partial(late_acks, 1e-3)),
)


@dataclass(frozen=True)
class Found:
    """What an attacker made of a planted leak."""

    leak: Leak
    attacker: Attacker
    auc: Measured
    roc: Curve


def search(
    trace: Trace,
    cells: int,
    attackers: Sequence[Attacker],
    rng: np.random.Generator,
    leaks: Sequence[Leak] = (*LATE, *OTHERS),
    load: float = 1.0,
) -> Iterator[Found]:
    """Let each attacker look for each leak in windows of so many cells."""
    for leak in leaks:
        windows = cut(planted(leak, thrown(trace, cells, rng), rng, load), cells)
        label = windows.label
        for attacker in attackers:
            matrix = attacker.see(windows, rng)
            score = attacker.tell(matrix, label, windows.unit(label), rng)
            auc = measured(score, label, windows.block, rng)
            yield Found(leak, attacker, auc, roc(score, label))


def smallest(found: Sequence[Found], attacker: Attacker) -> str:
    """The least lateness that an attacker found, and all greater ones with it; "": none."""
    name = ""
    mine = [each for each in found if each.attacker is attacker and each.leak in LATE]
    for each in reversed(mine):
        if not each.auc.found:
            break
        name = each.leak.name
    return name
