# SPDX-License-Identifier: MIT
"""What is read off a trace and its events besides figures.

    wire_of      an idle and a busy stretch, to be drawn
    latency      what a message took from where it went in to where it came out
    labelled     rows busy or idle by when messages were on their way; in blocks
    filled       how much of what busy stretches could have carried their messages were
    unpaired     how many messages were seen on one side only
    in_halves    rows busy or idle by a coin for each block, where nobody knows better
    clock_in     which law of the clocks the gaps are nearest to

A block of `labelled` is a stretch of at most BLOCK_CELLS of the first side's cells, or
`room_for` a window, that is busy, or idle, all through; a guard of GUARD_SECONDS about
each change belongs to none, since a message's own times are not those of its cells.  Nor
do cells when a message that was seen only to come in, or only to go out, may have been on
its way: as long as any other was.  Both label for windows of one length: a block has room
for one, and short windows have short blocks, since those of one block are alike in more
than their label.
"""

import math
from collections.abc import Sequence
from typing import Final

import numpy as np

from mesh.audit.cells import Block
from mesh.audit.report import Wire
from mesh.audit.trace import NO_BLOCK, Bools, Event, Floats, Rows, Trace
from mesh.core.cell import BODY_LEN
from mesh.core.clock import Clock

STRETCH_CELLS: Final = 48
"""Of each side in a drawing: as many as the eye still parts."""
BLOCK_CELLS: Final = 1_024
"""Of a block, at least, where there are many."""
SPARE: Final = 4.0
"""Square roots of a window's cells that a block has beyond it: while one side sends so many,
the other sends fewer, of a renewal clock by this once in a hundred million."""
COINS_MIN: Final = 24
"""Blocks that a coin is thrown for, where a capture has the cells for it."""
COIN_CELLS_MIN: Final = 64
GUARD_SECONDS: Final = 0.5
LAWS: Final = (
    (Clock.RENEWAL, 1 / 4),
    (Clock.SLOTTED, 1 / 6 - 1 / math.pi**2),
    (Clock.POISSON, 1.0),
    (Clock.CONSTANT, 0.0),
)
"""Clocks, and the variance of a gap in squares of its mean (report.py)."""


def wire_of(trace: Trace, world: str, seconds: float | None = None) -> Wire | None:
    """Draw the first idle block's begin, and the first busy one's; None: one is missing.

    Of so many seconds, or else of STRETCH_CELLS cells.
    """
    seconds = seconds or STRETCH_CELLS / trace.rate
    lanes = []
    for busy in (False, True):
        rows = trace.rows[
            (trace.rows["block"] != NO_BLOCK) & (trace.rows["busy"] == busy)
        ]
        if not len(rows):
            return None
        block = rows["block"] == rows["block"][0]
        lanes.append(_ticks(rows[block], seconds))
    return Wire(world, seconds, lanes[0], lanes[1])


def _ticks(rows: Rows, seconds: float) -> tuple[tuple[float, int], ...]:
    """Rows without segments are silence, where a wire has no cells."""
    begin = float(rows["at"][0])
    seen = rows[(rows["at"] < begin + seconds) & (rows["segments"] > 0)]
    return tuple((round(float(row["at"]) - begin, 6), int(row["side"])) for row in seen)


def latency(events: Sequence[Event]) -> float | None:
    """Seconds from a message's first "in" to its last "out", median; None: none came."""
    first: dict[str, float] = {}
    last: dict[str, float] = {}
    for event in events:
        if event.what == "in":
            first[event.ident] = min(event.at, first.get(event.ident, math.inf))
        else:
            last[event.ident] = max(event.at, last.get(event.ident, -math.inf))
    took = [last[ident] - first[ident] for ident in last if ident in first]
    return float(np.median(took)) if took else None


def carried(
    events: Sequence[Event], blocks: Sequence[Block], place: str, octets: float
) -> float | None:
    """Share of `octets` a second that came to a place in busy blocks; None: there is none."""
    begins = np.array([block.begin for block in blocks if block.busy])
    ends = np.array([block.end for block in blocks if block.busy])
    if not len(begins):
        return None
    came = [one for one in events if (one.what, one.place) == ("out", place)]
    inside = _within(np.array([one.at for one in came]), begins, ends)
    size = np.array([one.size for one in came])[inside].sum()
    return float(size / ((ends - begins).sum() * octets))


def room_for(cells: int) -> int:
    """Say how many of the first side's cells a block has at least for windows of so many."""
    return cells + math.ceil(SPARE * math.sqrt(cells))


def labelled(trace: Trace, events: Sequence[Event], cells: int = 0) -> Trace:
    """Label the rows of a capture by its events, for windows of so many cells; 0: short."""
    at = trace.rows["at"]
    begins, ends = _on_their_way(events)
    inside = _within(at, begins, ends)
    surely = _within(at, begins - GUARD_SECONDS, ends + GUARD_SECONDS)
    surely |= _within(at, *_perhaps(events))
    within = _within(at, begins + GUARD_SECONDS, ends - GUARD_SECONDS)
    counts = np.where(trace.rows["side"] == 0, 1, 0).cumsum()
    most = max(BLOCK_CELLS, room_for(cells))
    change = np.flatnonzero(np.diff(inside)) + 1
    # Idle: no message within the guard; busy: one at least for as long.
    usable = np.where(inside, within, ~surely)
    block = np.full(len(at), NO_BLOCK, np.int64)
    number = 0
    for part in np.split(np.arange(len(at)), change):
        mine = part[usable[part]]
        if len(mine):
            pieces = (counts[mine] - counts[mine[0]]) // most
            block[mine] = number + pieces
            number += int(pieces[-1]) + 1
    return trace.with_labels(block, inside)


def in_halves(trace: Trace, rng: np.random.Generator, cells: int = 0) -> Trace:
    """Label the rows of a capture by a coin for each block; as many of either kind.

    For windows of so many cells; 0: short.
    """
    side = trace.rows["side"] == 0
    many = min(BLOCK_CELLS, int(side.sum()) // COINS_MIN)
    size = max(COIN_CELLS_MIN, many, room_for(cells))
    block = np.where(side, 1, 0).cumsum() // size
    coins = rng.permutation(np.arange(int(block[-1]) + 1) % 2 == 0)
    return trace.with_labels(block, coins[block])


def filled(trace: Trace, events: Sequence[Event]) -> float:
    """Share of what one side could have sent while messages were on their way; at most 1.

    With little, idle is compared with idle.
    """
    begins, ends = _on_their_way(events)
    room = float((ends - begins).sum()) * trace.rate * BODY_LEN
    octets = sum(max(each.size for each in seen) for seen in _paired(events))
    return min(1.0, octets / room) if room else 0.0


def unpaired(events: Sequence[Event]) -> int:
    """Count the messages that were seen only to come in, or only to go out."""
    return len({one.ident for one in events}) - len(_paired(events))


def _paired(events: Sequence[Event]) -> list[list[Event]]:
    """The events of each message that came in and went out."""
    seen: dict[str, list[Event]] = {}
    for event in events:
        seen.setdefault(event.ident, []).append(event)
    return [each for each in seen.values() if len({one.what for one in each}) == 2]


def _on_their_way(events: Sequence[Event]) -> tuple[Floats, Floats]:
    """Stretches in which a message was inside, joined where they overlap."""
    times = [[one.at for one in each] for each in _paired(events)]
    joined: list[list[float]] = []
    for begin, end in sorted((min(each), max(each)) for each in times):
        if joined and begin <= joined[-1][1]:
            joined[-1][1] = max(joined[-1][1], end)
        else:
            joined.append([begin, end])
    return _edges(joined)


def _perhaps(events: Sequence[Event]) -> tuple[Floats, Floats]:
    """Stretches in which one may have been inside: it went out unseen, or came in so."""
    paired = _paired(events)
    known = {each[0].ident for each in paired}
    times = [[one.at for one in each] for each in paired]
    longest = GUARD_SECONDS + max((max(each) - min(each) for each in times), default=0)
    return _edges(
        [
            [one.at - longest, one.at + GUARD_SECONDS]
            if one.what == "out"
            else [one.at - GUARD_SECONDS, one.at + longest]
            for one in events
            if one.ident not in known
        ]
    )


def _edges(stretches: Sequence[Sequence[float]]) -> tuple[Floats, Floats]:
    pairs = np.array(stretches, np.float64).reshape(-1, 2)
    return pairs[:, 0], pairs[:, 1]


def _within(at: Floats, begins: Floats, ends: Floats) -> Bools:
    """Whether each instant lies in one of the stretches, which may overlap or be empty."""
    keep = ends > begins
    opened = np.searchsorted(np.sort(begins[keep]), at, side="right")
    closed = np.searchsorted(np.sort(ends[keep]), at, side="right")
    inside: Bools = opened > closed
    return inside


def clock_in(trace: Trace) -> str:
    """Name the law whose gaps vary as much as the first side's; "": too few cells."""
    gaps = trace.of(0)["gap"]
    gaps = gaps[np.isfinite(gaps)]
    if len(gaps) < STRETCH_CELLS:
        return ""
    variance = float(gaps.var() / gaps.mean() ** 2)
    nearest = min(LAWS, key=lambda law: abs(math.sqrt(law[1]) - math.sqrt(variance)))
    return nearest[0].name.lower()
