# SPDX-License-Identifier: MIT
"""When a cell leaves: the laws of the clocks, and the classes of their rate.

    clock       the next instant                             for
    renewal     the last *due* instant plus four             the default
                exponentials of mean T/4 (Erlang-4)
    greedy      as fast as there is data; padding at T       a trusted underlay

The order of the enumeration is the order of strictness: of two nodes' clocks the
smaller number is the link's.  A class is log2(cells a second) + 3, from 0 (one cell
in 8 s) to 15 (4,096 a second); T = 1 / rate.

Invariant: the next instant comes from the last *due* one and a draw, never from the
time at which something was done; so a late departure leaves no mark on later ones,
and nothing that mail does enters the law.  Draws come from a keyed stream, because a
snooper who can repeat a generator subtracts it and reads each delay bare.
See `mesh help protocol`; Erlang-4 has no edge at which a shift would show.
"""

import enum
import math
from typing import Final

from mesh.core.crypto import Key, keyed_hash

CLASS_MAX: Final = 15
"""4,096 cells a second: 16 MB/s, past which the clock is no longer the limit."""
CLASS_OFFSET: Final = 3
"""Class 0 is 2**-3 cells a second."""
ERLANG_SHAPE: Final = 4
"""Exponentials in a gap: mean wait 0.63 T, no mass at gap 0 where a serial sender shows."""
DRAW_LEN: Final = 7
"""Octets a draw: 56 bits, more than a double's 53."""


class Clock(enum.IntEnum):
    """The law of departure; smaller is stricter."""

    RENEWAL = 0
    SLOTTED = 1
    POISSON = 2
    CONSTANT = 3
    GREEDY = 4


def class_of(cells_per_second: float) -> int:
    """Give the class of a rate: ValueError unless it is a power of two in 1/8..4,096."""
    mantissa, exponent = math.frexp(cells_per_second)
    klass = exponent - 1 + CLASS_OFFSET
    if mantissa != 0.5 or not 0 <= klass <= CLASS_MAX:
        raise ValueError("not a power of two from 0.125 to 4096")
    return klass


def rate_of(klass: int) -> float:
    """Cells a second of a class."""
    return math.ldexp(1.0, klass - CLASS_OFFSET)


def period_of(klass: int) -> float:
    """Seconds between two cells of a class, on average: T."""
    return math.ldexp(1.0, CLASS_OFFSET - klass)


class Draws:
    """Uniform draws in (0, 1] from a stream keyed once: BLAKE2b over a counter."""

    __slots__ = ("_at", "_block", "_counter", "_key")

    def __init__(self, key: Key) -> None:
        self._key = key
        self._counter = 0
        self._block = b""
        self._at = 0

    def unit(self) -> float:
        """One draw; 64 octets of stream serve nine."""
        if self._at + DRAW_LEN > len(self._block):
            counter = self._counter.to_bytes(8, "big")
            self._block = keyed_hash(self._key, b"mesh/1 draws" + counter, 64)
            self._counter += 1
            self._at = 0
        octets = self._block[self._at : self._at + DRAW_LEN]
        self._at += DRAW_LEN
        return (int.from_bytes(octets, "big") + 1) / (1 << 8 * DRAW_LEN)


class Renewal:
    """The instants of one `renewal` link.

    `due` is the instant of the next cell, in the seconds of `now`'s clock.  The first
    lies a random part of a gap after the start, so that links made together part.
    """

    __slots__ = ("_draws", "_scale", "due")

    def __init__(self, klass: int, key: Key, now: float) -> None:
        self._draws = Draws(key)
        self._scale = period_of(klass) / ERLANG_SHAPE
        self.due = now + self._draws.unit() * period_of(klass)

    def advance(self) -> float:
        """Move to the instant after this one and return it."""
        product = 1.0
        for _ in range(ERLANG_SHAPE):
            product *= self._draws.unit()
        self.due -= self._scale * math.log(product)
        return self.due
