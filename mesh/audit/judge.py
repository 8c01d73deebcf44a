# SPDX-License-Identifier: MIT
"""From what was captured of one world to its figures, with bounds and controls.

    pair       idle or busy, for each length of window of which there are enough; beside
               each attacker's own controls (planted leaks, shuffled labels) what the
               same attacker makes of the link without cover
    messages   matching, sizes, disclosure, departures; the control is plain SMTP

A figure whose windows are too few is not made: `too_few` says so in a note.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from mesh.audit.attackers import ATTACKERS, Attacker
from mesh.audit.bounds import auc_promise, bound_of, information_promise
from mesh.audit.features import Windows, cut
from mesh.audit.figures import Control, Figure
from mesh.audit.idle_busy import idle_busy
from mesh.audit.lab import Captured
from mesh.audit.statistics import measured, roc
from mesh.audit.trace import Trace

LENGTHS: Final = (32, 128, 1_024, 3_600)
"""Cells of a window."""
WINDOWS_MIN: Final = 20
"""Of each kind."""
BLOCKS_MIN: Final = 3
"""Of each kind: fewer are no folds."""
BROKEN: Final = 0.9
"""What every attacker reaches at least where there is no cover."""


def too_few(trace: Trace, cells: int) -> str:
    """Why nothing can be said of windows of so many cells; "": it can."""
    try:
        windows = cut(trace, cells)
    except ValueError:
        return f"windows of {cells:,} cells: none"
    if _enough(windows):
        return ""
    label = windows.label
    busy, idle = int(label.sum()), int((~label).sum())
    return f"windows of {cells:,} cells: only {idle} idle and {busy} busy ones"


def _enough(windows: Windows) -> bool:
    label, block = windows.label, windows.block
    return all(
        int(kind.sum()) >= WINDOWS_MIN and len(np.unique(block[kind])) >= BLOCKS_MIN
        for kind in (label, ~label)
    )


def pair(
    trace: Trace,
    cells: int,
    bare: Trace | None,
    rng: np.random.Generator,
    attackers: Sequence[Attacker] = ATTACKERS,
) -> Iterator[Figure]:
    """Figures of windows of so many cells; `bare`: the link without cover."""
    broken = {} if bare is None else _broken(bare, cells, rng, attackers)
    for figure in idle_busy(trace, cells, rng=rng):
        more = broken.get(figure.attacker)
        promise = (
            information_promise(cells) if figure.unit == "bit" else auc_promise(cells)
        )
        yield replace(
            figure,
            bound=bound_of(promise, figure.count),
            controls=(*figure.controls, *([more] if more else [])),
        )


def _broken(
    bare: Trace, cells: int, rng: np.random.Generator, attackers: Sequence[Attacker]
) -> dict[str, Control]:
    """What each attacker makes of the link without cover, where it has enough windows."""
    windows = cut(bare, cells)
    if not _enough(windows):
        return {}
    found = {}
    for attacker in attackers:
        matrix = attacker.see(windows, rng)
        score = attacker.tell(matrix, windows.label, windows.block, rng)
        auc = measured(score, windows.label, windows.block, rng)
        found[attacker.name] = Control(
            "without cover",
            auc.value,
            f"> {BROKEN:g}",
            auc.value > BROKEN,
            roc(score, windows.label),
        )
    return found


def messages(
    chain: Captured, bare: Captured | None, rng: np.random.Generator
) -> Iterator[Figure]:
    """Figures of messages on their way through a chain."""
    del chain, bare, rng
    yield from ()
