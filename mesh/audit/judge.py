# SPDX-License-Identifier: MIT
"""From what was captured of one world to its figures, with bounds and controls.

    pair       idle or busy, for each length of window of which there are enough; beside
               each attacker's own controls (planted leaks, shuffled labels) what the
               same attacker makes of the link without cover
    white_box  the same in windows that no capture reaches, from the pacer's own counts
    messages   matching, sizes, disclosure, departures; the control is plain SMTP

A figure whose windows are too few is not made: `too_few` says how few.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from mesh.audit import departures, disclosure, matching, sizes
from mesh.audit.attackers import ATTACKERS
from mesh.audit.bounds import (
    AUC_LONG,
    INFORMATION_LONG,
    MATCHING,
    SIZE,
    auc_promise,
    bound_of,
    information_promise,
    rate_bound,
)
from mesh.audit.counts import KINDS
from mesh.audit.features import Windows, cut
from mesh.audit.figures import Control, Figure
from mesh.audit.idle_busy import from_counts, idle_busy
from mesh.audit.lab import Captured
from mesh.audit.planting import LATE, OTHERS
from mesh.audit.statistics import measured, roc
from mesh.audit.trace import NO_BLOCK, Event, Floats, Trace
from mesh.audit.worlds import Plan
from mesh.core.clock import Clock

LEAKS: Final = (*LATE, *OTHERS)
WINDOWS_MIN: Final = 20
"""Of each kind."""
BLOCKS_MIN: Final = 4
"""Of each kind: fewer are no folds, and no bootstrap."""
WINDOWS_MOST: Final = 20_000
"""Of both kinds: a run that is long enough for the longest windows has ten times as many
of the shortest, and judging those would take hours; since those of one block are alike,
twice as many make the error a tenth smaller."""
BARE_BLOCKS_MIN: Final = 2
"""Where there is no cover: what is plain to see needs no bootstrap."""
BARE_WINDOWS_MIN: Final = 8
COUNTED_MIN: Final = 5_000
"""Cells of each kind, for the white box."""
MESSAGES_MIN: Final = 15
TICK_SECONDS: Final = Plan().tick_seconds
"""Of the lab's pool."""
FIRST: Final = "alpha"
WIRES: Final = ("alpha-bravo", "bravo-charlie")
"""On either side of the place that messages are followed through."""
MAIL_LEAST: Final = 0.25
"""Of the planned load, in busy blocks, or of a capture's link: a leak in cells with mail is
thinned by as much as is missing, and with less than this, idle is compared with idle."""
BROKEN: Final = 0.9
"""What every attacker reaches at least where there is no cover."""


def too_few(trace: Trace, cells: int) -> str:
    """How few windows of so many cells there are; "": enough."""
    try:
        windows = cut(trace, cells)
    except ValueError:
        return f"{cells:,} cells (none)"
    if _enough(windows):
        return ""
    label = windows.label
    return f"{cells:,} cells ({int((~label).sum())} idle, {int(label.sum())} busy)"


def white_box(
    captured: Captured, clock: str, rng: np.random.Generator
) -> Iterator[Figure | str]:
    """What the first node's lateness tells at most, in windows that no capture reaches."""
    idle, busy = (captured.late.get(kind, ()) for kind in KINDS)
    count = min(sum(idle), sum(busy))
    if count < COUNTED_MIN:
        yield f"a white box ({count} cells counted)"
        return
    for figure in from_counts(Clock[clock.upper()], idle, busy, rng):
        promise = INFORMATION_LONG if figure.unit == "bit" else AUC_LONG
        yield replace(figure, bound=promise.bound)


def _enough(
    windows: Windows, blocks: int = BLOCKS_MIN, count: int = WINDOWS_MIN
) -> bool:
    label, block = windows.label, windows.block
    return all(
        int(kind.sum()) >= count and len(np.unique(block[kind])) >= blocks
        for kind in (label, ~label)
    )


def pair(
    trace: Trace,
    cells: int,
    bare: Trace | None,
    rng: np.random.Generator,
    load: float = 1.0,
) -> Iterator[Figure]:
    """Figures of windows of so many cells; `bare`: the link without cover.

    `load`: that of the busy windows, of what the link carries.
    """
    broken = {} if bare is None else _broken(bare, cells, rng)
    trace = thinned(trace, cells, rng, WINDOWS_MOST)
    for figure in idle_busy(trace, cells, rng, ATTACKERS, LEAKS, load):
        more = broken.get(figure.attacker)
        promise = (
            information_promise(cells) if figure.unit == "bit" else auc_promise(cells)
        )
        yield replace(
            figure,
            bound=bound_of(promise, figure.count),
            controls=(*figure.controls, *([more] if more else [])),
        )


def thinned(trace: Trace, cells: int, rng: np.random.Generator, most: int) -> Trace:
    """The same with fewer windows, if it has more: less of each block, drawn by chance.

    Windows of one block are alike in more than their label, so a window less in each
    takes less from a figure than a block less.  What is left of one is in one piece.
    """
    windows = cut(trace, cells)
    if len(windows) <= most:
        return trace
    _, first, count = np.unique(windows.block, return_index=True, return_counts=True)
    order = rng.permutation(len(count))
    left = np.zeros_like(count)
    left[order] = np.diff(np.cumsum(count[order]) * most // len(windows), prepend=0)
    begin = first + rng.integers(0, count - left + 1)
    number = np.arange(len(windows))
    kept = (number >= np.repeat(begin, count)) & (
        number < np.repeat(begin + left, count)
    )
    inside = np.zeros(len(trace.rows), bool)
    inside[windows.index[:, kept].ravel()] = True
    return trace.with_labels(
        np.where(inside, trace.rows["block"], NO_BLOCK), trace.rows["busy"]
    )


def _broken(bare: Trace, cells: int, rng: np.random.Generator) -> dict[str, Control]:
    """What each attacker makes of the link without cover, where it has enough windows."""
    windows = cut(bare, cells)
    if not _enough(windows, BARE_BLOCKS_MIN, BARE_WINDOWS_MIN):
        return {}
    found: dict[str, Control] = {}
    label = windows.label
    for attacker in ATTACKERS:
        matrix = attacker.see(windows, rng)
        score = attacker.tell(matrix, label, windows.unit(label), rng)
        auc = measured(score, label, windows.block, rng)
        found[attacker.name] = Control(
            "without cover",
            auc.value,
            f"> {BROKEN:g}",
            auc.value > BROKEN,
            roc(score, label),
        )
    return found


def mail_was_there(share: float, of: str) -> Control:
    """Busy blocks without mail are idle: who finds nothing there has shown nothing."""
    wanted = f">= {MAIL_LEAST:g} {of}"
    return Control("mail was there", share, wanted, share >= MAIL_LEAST)


def messages(
    chain: Captured, bare: Captured | None, rng: np.random.Generator
) -> Iterator[Figure | str]:
    """Figures of messages on their way through a chain, and why there are no others."""
    if bare is None:
        yield "messages: not without the same over plain SMTP for control"
        return
    for name, part in PARTS.items():
        try:
            yield from part(chain, bare, rng)
        except ValueError as few:  # of folds, where messages lie in too few places
            yield f"{name}: {few}"


def matched(
    chain: Captured, bare: Captured, rng: np.random.Generator
) -> Iterator[Figure | str]:
    """Figures of messages that are followed through bravo, or why there are none."""
    mine, control = _through(chain), _through(bare)
    if few := _few(mine.left, control.left):
        yield f"matching: {few}"
        return
    for figure in matching.figures(mine, control, rng):
        is_auc, count = figure.unit == "AUC", figure.count
        limit = bound_of(MATCHING, count) if is_auc else rate_bound(count)
        yield replace(figure, bound=limit)


def _sized(
    chain: Captured, bare: Captured, rng: np.random.Generator
) -> Iterator[Figure | str]:
    mine, control = (
        sizes.sized(one.traces[WIRES[0]], one.events, FIRST) for one in (chain, bare)
    )
    if few := _few(mine.at, control.at):
        yield f"sizes: {few}"
        return
    for figure in sizes.figures(mine, control, rng):
        yield replace(figure, bound=bound_of(SIZE, figure.count))


def _disclosed(
    chain: Captured, bare: Captured, rng: np.random.Generator
) -> Iterator[Figure | str]:
    mine, control = (
        (one.traces[WIRES[0]], _handed_in(one.events)) for one in (chain, bare)
    )
    if few := _few(mine[1], control[1]):
        yield f"disclosure: {few}"
        return
    yield disclosure.figure(*mine, control, rng)


def _departed(
    chain: Captured, bare: Captured, rng: np.random.Generator
) -> Iterator[Figure | str]:
    mine, control = (
        departures.departures(one.events, "charlie", "sink", TICK_SECONDS)
        for one in (chain, bare)
    )
    if few := _few(mine.left, control.left):
        yield f"port 25: {few}"
        return
    yield departures.figure(mine, control, rng)


PARTS: Final = {
    "matching": matched,
    "sizes": _sized,
    "disclosure": _disclosed,
    "port 25": _departed,
}


def _few(*counted: Floats) -> str:
    """Say that there are too few messages; "": there are enough."""
    count = min(map(len, counted))
    return "" if count >= MESSAGES_MIN else f"only {count} messages"


def _handed_in(events: Sequence[Event]) -> Floats:
    """When the first place handed messages in."""
    return np.array(
        sorted(one.at for one in events if (one.place, one.what) == (FIRST, "in"))
    )


def _through(captured: Captured) -> matching.Seen:
    """What passed through bravo, and the wires on either side of it."""
    first, second = (captured.traces[name] for name in WIRES)
    return matching.seen(first, second, captured.events, "bravo")
