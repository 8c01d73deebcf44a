# SPDX-License-Identifier: MIT
"""Idle or busy: each attacker's figures for windows of one length, with his controls.

Of each attacker there are two figures: the AUC, and the bits that a window tells.  Both
rest on one fit, so they have the same controls:

    labels shuffled      among blocks: 0.5
    idle against idle    the noise floor, a coin thrown over the idle windows: 0.5.  The
                         busy ones, as many as come, are left out
    planted              a lateness that with so much data has to be found: what is
                         promised (PROMISED), or where windows are fewer than that, the
                         greatest of planting.LATE

What he found of the others is in the note.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from mesh.audit.attackers import ATTACKERS, Attacker
from mesh.audit.features import Windows, cut
from mesh.audit.figures import Control, Figure
from mesh.audit.planting import LATE, OTHERS, Found, Leak, search, smallest
from mesh.audit.statistics import information, measured, permuted, roc
from mesh.audit.trace import Bools, Floats, Ints, Trace

NAME: Final = "idle or busy"
LONG_CELLS: Final = 1_024
"""From so many cells a window is long."""
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
) -> list[Figure]:
    """Give two figures of each attacker, without bounds.

    ValueError: fewer than two blocks of either kind have windows of so many cells.
    """
    rng = rng or np.random.default_rng()
    windows = cut(trace, cells)
    found = list(search(trace, cells, attackers, rng, leaks))
    return [
        figure
        for attacker in attackers
        for figure in _figures(windows, attacker, found, rng)
    ]


def wanted(cells: int, count: int) -> Leak:
    """Which planted lateness has to be found with so many windows of a kind."""
    enough, leak = PROMISED[cells >= LONG_CELLS]
    return leak if count >= enough else LATE[-1]


def _figures(
    windows: Windows,
    attacker: Attacker,
    found: Sequence[Found],
    rng: np.random.Generator,
) -> list[Figure]:
    matrix = attacker.see(windows, rng)
    label, block = windows.label, windows.block
    score = attacker.tell(matrix, label, block, rng)
    auc = measured(score, label, block, rng)
    told = information(score, label, block, rng)
    mine = [each for each in found if each.attacker is attacker]
    must = wanted(windows.cells, auc.count)
    controls = (
        *(_planted(each, must) for each in mine if each.leak is must),
        *_nulls(windows, attacker, matrix, rng),
    )
    name = f"{NAME}, windows of {windows.cells:,} cells"
    others = [each.leak.name for each in mine if each.auc.found and each.leak in OTHERS]
    aucs = ", ".join(f"{each.leak.name} {each.auc.signed:.3f}" for each in mine)
    note = f"also found: {', '.join(others) or 'nothing'}; AUC of each: {aucs}"
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


def _planted(found: Found, must: Leak) -> Control:
    return Control(
        must.name, found.auc.signed, "above 0.5 for sure", found.auc.found, found.roc
    )


def _nulls(
    windows: Windows, attacker: Attacker, matrix: Floats, rng: np.random.Generator
) -> list[Control]:
    """Where there is nothing to find; the fit is new, what is seen is the same."""
    label, block = windows.label, windows.block
    shuffled = permuted(label, block, rng)
    controls = [_null("labels shuffled", attacker, matrix, shuffled, block, rng)]
    floor = block[~label]
    if len(np.unique(floor)) >= 4:  # two of each kind
        coin = _coin(floor, rng)
        name = "idle against idle"
        controls.append(_null(name, attacker, matrix[~label], coin, floor, rng))
    return controls


def _coin(block: Ints, rng: np.random.Generator) -> Bools:
    """Half of the blocks, by chance."""
    blocks = np.unique(block)
    heads: Bools = np.isin(block, rng.permutation(blocks)[: len(blocks) // 2])
    return heads


def _null(
    name: str,
    attacker: Attacker,
    matrix: Floats,
    label: Bools,
    block: Ints,
    rng: np.random.Generator,
) -> Control:
    score = attacker.tell(matrix, label, block, rng)
    auc = measured(score, label, block, rng)
    return Control(name, auc.signed, "0.5", auc.null, roc(score, label))
