# SPDX-License-Identifier: MIT
"""Idle or busy: each attacker's figures for windows of one length, with his controls.

Of each attacker there are two figures: the AUC, and the bits that a window tells.  Both
rest on one fit, so they have the same controls:

    labels shuffled      among blocks: 0.5
    idle against idle    the noise floor, a coin thrown over the idle windows: 0.5.  The
                         busy ones, as many as come, are left out
    planted              by this attacker: the greatest of planting.LATE; and by one of
                         them at least, where there are as many windows as is promised,
                         the lateness that is promised (PROMISED).  It is near what any
                         attacker could find in so many

What he found of the others is in the note.

`from_counts` gives the figures of the white box instead: from the pacer's own counts of
late cells, idle and busy, for a length that no capture reaches (whitebox.py).  Its controls:
the same counts where no clock hides them (`constant`), with every busy cell of a bucket
in one of 4 to 8 ms; and a node against itself.  In its note stands what two draws of as
many cells from one law would come to: a bound cannot be lower than the counts' noise.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Final

import numpy as np

from mesh.audit.attackers import ATTACKERS, Attacker
from mesh.audit.features import Windows, cut
from mesh.audit.figures import Control, Figure
from mesh.audit.planting import LATE, OTHERS, Found, Leak, search, smallest
from mesh.audit.statistics import information, measured, permuted, roc
from mesh.audit.trace import Bools, Floats, Ints, Trace
from mesh.audit.whitebox import bound
from mesh.core.clock import Clock

NAME: Final = "idle or busy"
LOAD_LOW: Final = 0.5
LONG_CELLS: Final = 1_024
"""From so many cells a window is long."""
FLOOR_BLOCKS: Final = 12
"""Idle blocks for idle against idle: with fewer a bootstrap of them is too sure."""
UNSEEN: Final = (1.0, 3_600)
"""Cells a second, and cells of a window: it lasts an hour.  What a capture reaches the
capture tells: the counts take cells for independent of each other, and on a busy host
they are late together."""
LATE_BUCKET: Final = 13
"""From 4.1 to 8.2 ms."""
PROMISED: Final[Mapping[bool, tuple[int, Leak]]] = {
    False: (6_200, LATE[2]),
    True: (1_000, LATE[1]),
}
"""Of short windows and of long ones: with so many of each kind, this is found."""


def idle_busy(
    trace: Trace,
    cells: int,
    rng: np.random.Generator | None = None,
    attackers: Sequence[Attacker] = ATTACKERS,
    leaks: Sequence[Leak] = (*LATE, *OTHERS),
    load: float = 1.0,
) -> list[Figure]:
    """Give two figures of each attacker, without bounds; load: of the busy windows.

    ValueError: fewer than two blocks of either kind have windows of so many cells.
    """
    rng = rng or np.random.default_rng()
    windows = cut(trace, cells)
    found = list(search(trace, cells, attackers, rng, leaks, load))
    return [
        figure
        for attacker in attackers
        for figure in _figures(windows, attacker, found, rng, load)
    ]


def wanted(cells: int, count: int, load: float = 1.0) -> Leak:
    """Which planted lateness has to be found with so many windows of a kind.

    At LOAD_LOW and below it is in far fewer cells than the promise is for.
    """
    enough, leak = PROMISED[cells >= LONG_CELLS]
    return leak if count >= enough and load > LOAD_LOW else LATE[-1]


def _figures(
    windows: Windows,
    attacker: Attacker,
    found: Sequence[Found],
    rng: np.random.Generator,
    load: float,
) -> list[Figure]:
    matrix = attacker.see(windows, rng)
    label, block = windows.label, windows.block
    score = attacker.tell(matrix, label, windows.unit(label), rng)
    auc = measured(score, label, block, rng)
    told = information(score, label, block, rng)
    mine = [each for each in found if each.attacker is attacker]
    controls = (
        *(_planted(each, each.leak.name) for each in mine if each.leak is LATE[-1]),
        *_by_any(found, wanted(windows.cells, auc.count, load)),
        *_nulls(windows, attacker, matrix, rng),
    )
    name = f"{NAME}, windows of {windows.cells:,} cells"
    others = [each.leak.name for each in mine if each.auc.found and each.leak in OTHERS]
    aucs = ", ".join(f"{each.leak.name} {each.auc.signed:.3f}" for each in mine)
    note = f"also found: {', '.join(others) or 'nothing'}; AUC of each: {aucs}"
    if load < 1:
        note += f"; planted in {load:.0%} of the cells"
    least = smallest(found, attacker)
    curve = roc(score, label)
    return [
        Figure(
            name=name,
            attacker=attacker.name,
            value=value,
            upper=upper,
            bound=None,
            unit=unit,
            count=auc.count,
            smallest=least,
            controls=controls,
            roc=curve if unit == "AUC" else (),
            note=note if unit == "AUC" else "",
        )
        for value, upper, unit in (
            (auc.value, auc.upper, "AUC"),
            (told.bits, told.upper, "bit"),
        )
    ]


def _planted(found: Found, name: str) -> Control:
    auc = found.auc
    return Control(name, auc.signed, "above 0.5 for sure", auc.found, found.roc)


def _by_any(found: Sequence[Found], must: Leak) -> list[Control]:
    """The best attacker's, where more is promised than that each finds the greatest."""
    some = [each for each in found if each.leak is must and must is not LATE[-1]]
    best = max(some, key=lambda each: each.auc.signed, default=None)
    return [_planted(best, f"{must.name}, {best.attacker.name}")] if best else []


def _nulls(
    windows: Windows, attacker: Attacker, matrix: Floats, rng: np.random.Generator
) -> list[Control]:
    """Where there is nothing to find; the fit is new, what is seen is the same."""
    label, block = windows.label, windows.block
    null = partial(_null, attacker, rng=rng)
    controls = [null("labels shuffled", matrix, permuted(label, block, rng), windows)]
    floor = block[~label]
    if len(np.unique(floor)) >= FLOOR_BLOCKS:
        coin = _coin(floor, rng)
        controls.append(
            null("idle against idle", matrix[~label], coin, windows.those(~label))
        )
    return controls


def _coin(block: Ints, rng: np.random.Generator) -> Bools:
    """Half of the blocks, by chance."""
    blocks = np.unique(block)
    heads: Bools = np.isin(block, rng.permutation(blocks)[: len(blocks) // 2])
    return heads


def _null(
    attacker: Attacker,
    name: str,
    matrix: Floats,
    label: Bools,
    windows: Windows,
    rng: np.random.Generator,
) -> Control:
    score = attacker.tell(matrix, label, windows.unit(label), rng)
    auc = measured(score, label, windows.block, rng)
    return Control(name, auc.signed, "0.5", auc.null, roc(score, label))


def from_counts(
    clock: Clock,
    idle: Sequence[int],
    busy: Sequence[int],
    rng: np.random.Generator,
    unseen: tuple[float, int] = UNSEEN,
) -> list[Figure]:
    """Give two figures for a rate and a length, from a pacer's counts.

    ValueError: see whitebox.bound.
    """
    rate, cells = unseen
    told = bound(clock, rate, cells, idle, busy, rng)
    one, other = _twice(idle, busy, rng)
    noise = bound(clock, rate, cells, one, other, rng)
    controls = _open(rate, cells, idle, rng)
    name = f"{NAME}, windows of {cells:,} cells at {rate:g}/s"
    note = (
        f"counts drawn twice from one law: {noise.most:.6f}, {noise.bits_upper:.2g} bit"
    )
    return [
        Figure(
            name=name,
            attacker="white box",
            value=value,
            upper=upper,
            bound=None,
            unit=unit,
            count=int(min(sum(idle), sum(busy))),
            smallest="",
            controls=controls,
            note=note,
        )
        for value, upper, unit in (
            (told.auc, told.most, "AUC"),
            (told.bits, told.bits_upper, "bit"),
        )
    ]


def _twice(
    idle: Sequence[int], busy: Sequence[int], rng: np.random.Generator
) -> tuple[Sequence[int], Sequence[int]]:
    law = np.add(idle, busy) / (sum(idle) + sum(busy))
    one, other = (rng.multinomial(sum(counts), law).tolist() for counts in (idle, busy))
    return one, other


def _open(
    rate: float, cells: int, idle: Sequence[int], rng: np.random.Generator
) -> tuple[Control, ...]:
    late = [0] * len(idle)
    late[LATE_BUCKET] = int(sum(idle))
    seen = bound(Clock.CONSTANT, rate, cells, idle, late, rng)
    same = bound(Clock.CONSTANT, rate, cells, idle, idle, rng)
    return (
        Control("5 ms late on a ruler", seen.auc, "> 0.99", seen.auc > 0.99),
        Control("idle against idle", same.auc, "0.5", same.auc == 0.5),
    )
