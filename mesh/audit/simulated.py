# SPDX-License-Identifier: MIT
"""A link without a wire: cells by the clock's own laws, and as late as one asks for.

A cell leaves at its due instant plus its lateness, and never before the one that went
before it (the pacer serves one after the other; what piles up leaves at once).  The
instants come from mesh.core.clock itself, under a key that the generator draws, so one
seed gives one trace.  Lateness is a function of how many cells there are, so that it
may depend on where in the trace a cell is; `on_time` is none.

The rest is a quiet host's: three segments of a 1,500-octet frame's TCP, two bare ACKs,
the last of them after 30 us and an exponential 10 us; no cell twice, one window size.
All rows lie in one idle block, number 0.

`greedy` has no law: its padding is on a grid of T while there is no mail, and `burst`
says what mail does to it.
"""

from collections.abc import Callable
from typing import Final, TypeAlias

import numpy as np

from mesh.audit.trace import ROW, SIDES, Bools, Floats, Rows, Trace, by_time
from mesh.core.cell import CELL_LEN
from mesh.core.clock import Clock, class_of, law_of
from mesh.core.crypto import KEY_LEN, Key

Lateness: TypeAlias = Callable[[int], Floats]
"""Of so many cells, one after the other: how late each is, seconds."""

SEGMENT: Final = 1448
"""Octets of TCP in a frame of 1,500 with timestamps."""
ACK_SECONDS: Final = 30e-6
ACK_SPREAD: Final = 10e-6
ACKS: Final = 2
WINDOW: Final = 64 * 1024
BURST_GAP: Final = 40e-6
"""Between cells of a greedy link that has more: what the kernel takes for one."""


def on_time(count: int) -> Floats:
    """Nothing is late."""
    return np.zeros(count)


def noisy(rng: np.random.Generator, typical: float = 60e-6) -> Lateness:
    """Late as on a quiet host: lognormal around a typical lateness, a factor 1.5 wide."""

    def late(count: int) -> Floats:
        return typical * np.exp(rng.normal(0.0, np.log(1.5), count))

    return late


def instants(
    clock: Clock, rate: float, count: int, rng: np.random.Generator, begin: float = 0.0
) -> Floats:
    """The first due instants of a link, by mesh.core.clock; ValueError: no such rate."""
    if clock is Clock.GREEDY:
        return begin + np.arange(1, count + 1) / rate
    law = law_of(clock, class_of(rate), Key.from_bytes(rng.bytes(KEY_LEN)), begin)
    due = np.empty(count)
    for number in range(count):
        due[number] = law.due
        law.advance()
    return due


def simulate(
    clock: Clock,
    rate: float,
    count: int,
    rng: np.random.Generator,
    lateness: Lateness = on_time,
) -> Rows:
    """Give so many cells of each side, by time; only the first side's are late."""
    sides = []
    for side in SIDES:
        due = instants(clock, rate, count, rng)
        late = lateness(count) if side == 0 else on_time(count)
        sides.append(rows_at(side, np.maximum.accumulate(due + late), rng))
    return by_time(np.concatenate(sides))


def simulated(
    clock: Clock,
    rate: float,
    count: int,
    rng: np.random.Generator,
    lateness: Lateness = on_time,
) -> Trace:
    """The same as a trace."""
    rows = simulate(clock, rate, count, rng, lateness)
    return Trace(rows, rate, clock.name.lower(), "simulated")


def rows_at(side: int, at: Floats, rng: np.random.Generator) -> Rows:
    """Rows of cells that leave one side at these instants, as a quiet host sends them."""
    rows = np.zeros(len(at), ROW)
    rows["side"], rows["at"] = side, at
    rows["gap"] = np.diff(at, prepend=np.nan)
    rows["ack_delay"] = ACK_SECONDS + rng.exponential(ACK_SPREAD, len(at))
    rows["acks"], rows["window"] = ACKS, WINDOW
    rows["segments"] = -(-CELL_LEN // SEGMENT)
    rows["first"], rows["last"] = SEGMENT, CELL_LEN % SEGMENT
    return rows


def burst(rows: Rows, busy: Bools, share: float, rng: np.random.Generator) -> Rows:
    """What mail does to a link without a clock: more cells, close behind the others.

    In rows that are marked busy, each cell of the first side has with the chance
    `share` another one BURST_GAP behind it.  For control worlds only.
    """
    mine = busy & (rows["side"] == 0) & (rng.random(len(rows)) < share)
    more = rows[mine].copy()
    more["at"] += BURST_GAP
    out = by_time(np.concatenate([rows, more]))
    for side in SIDES:
        this = out["side"] == side
        out["gap"][this] = np.diff(out["at"][this], prepend=np.nan)
    return out
