# SPDX-License-Identifier: MIT
"""When a cell leaves: the laws of the clocks, and the classes of their rate.

    clock       the next instant                             for
    renewal     the last *due* instant plus four             the default
                exponentials of mean T/4 (Erlang-4)
    slotted     in each slot of T one cell, at T times a     a wait below 2 T, always
                raised-cosine variate (density 2 sin^2 pi x)
    poisson     the last due plus one exponential            comparison: its edge at
                of mean T                                    gap 0 shows a busy sender
    constant    on the tick, each T                          a ruler: it shows that an
                                                             attacker is awake
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
import struct
from collections.abc import Mapping
from typing import ClassVar, Final, Protocol

from mesh.core.crypto import NONCE_LEN, Key, seal

CLASS_MAX: Final = 15
"""4,096 cells a second: 16 MB/s, past which the clock is no longer the limit."""
CLASS_OFFSET: Final = 3
"""Class 0 is 2**-3 cells a second."""
ERLANG_SHAPE: Final = 4
"""Exponentials in a gap: mean wait 0.63 T, no mass at gap 0 where a serial sender shows."""
RAISED_COSINE_BITS: Final = 40
"""Halvings: 10**-12 of a period, far below what any clock can show."""
DRAW_SHIFT: Final = 11
"""Bits of 64 that are left out of a draw: a double has 53."""
_DRAW_UNIT: Final = math.ldexp(1.0, DRAW_SHIFT - 64)
_BLOCK: Final = struct.Struct(">128Q")
"""Draws that are made at once: 32 gaps of `renewal`.  The code that makes them, and
what it needs, is seldom in the processor's caches; one alone costs half a cell's send.
Shorter than what OpenSSL seals (bulk.py): the pacer may load nothing any more."""
_ZEROS: Final = bytes(_BLOCK.size)


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
    """Uniform draws in (0, 1] from a stream keyed once: ChaCha20's, over a counter."""

    __slots__ = ("_counter", "_key", "_left")

    def __init__(self, key: Key) -> None:
        self._key = key
        self._counter = 0
        self._left: list[float] = []

    def unit(self) -> float:
        """One draw."""
        if not self._left:
            self._left = self.block()
        return self._left.pop()

    def block(self) -> list[float]:
        """All draws of a part of the stream: 128, and none of them again by `unit`."""
        stream = seal(self._key, self._counter.to_bytes(NONCE_LEN, "big"), _ZEROS)
        self._counter += 1
        words = _BLOCK.unpack_from(stream)
        return [((word >> DRAW_SHIFT) + 1) * _DRAW_UNIT for word in words]


class Law(Protocol):
    """The instants of one link: `due` is the next, `advance` steps to the one after."""

    due: float

    def advance(self) -> float:
        """Move to the instant after this one and return it."""


class Renewal:
    """The instants of one `renewal` link.

    `due` is the instant of the next cell, in the seconds of `now`'s clock.  The first
    lies a random part of a gap after the start, so that links made together part.
    """

    __slots__ = ("_draws", "_gaps", "_scale", "due")
    SHAPE: ClassVar[int] = ERLANG_SHAPE

    def __init__(self, klass: int, key: Key, now: float) -> None:
        self._draws = Draws(key)
        self._scale = period_of(klass) / self.SHAPE
        self._gaps: list[float] = []
        self.due = now + self._draws.unit() * period_of(klass)

    def advance(self) -> float:
        """Move to the instant after this one and return it."""
        if not self._gaps:
            self._gaps = self._draw()
        self.due += self._gaps.pop()
        return self.due

    def _draw(self) -> list[float]:
        """The next gaps, each of four draws."""
        scale, log = -self._scale, math.log
        draws = self._draws.block()
        fours = zip(draws[::4], draws[1::4], draws[2::4], draws[3::4], strict=True)
        return [scale * log(a * b * c * d) for a, b, c, d in fours]


class Poisson(Renewal):
    """The instants of one `poisson` link: gaps are exponential (Erlang-1)."""

    __slots__ = ()
    SHAPE = 1

    def _draw(self) -> list[float]:
        """The next gaps, each of one draw."""
        return [-self._scale * math.log(unit) for unit in self._draws.block()]


class Constant:
    """The instants of one `constant` link: a grid of T whose phase is drawn once."""

    __slots__ = ("_period", "_slot", "_start", "due")

    def __init__(self, klass: int, key: Key, now: float) -> None:
        self._period = period_of(klass)
        self._start = now + Draws(key).unit() * self._period
        self._slot = 0
        self.due = self._start

    def advance(self) -> float:
        """Move to the next tick; no rounding adds up, however long the link lives."""
        self._slot += 1
        self.due = self._start + self._slot * self._period
        return self.due


class Slotted:
    """The instants of one `slotted` link: once in each slot, away from its edges.

    The slots' phase is drawn once a link.  The variate x has the distribution
    x - sin(2 pi x) / (2 pi), which is inverted by halving, the same work each time.
    """

    __slots__ = ("_draws", "_period", "_slot", "_start", "due")

    def __init__(self, klass: int, key: Key, now: float) -> None:
        self._draws = Draws(key)
        self._period = period_of(klass)
        self._start = now - self._draws.unit() * self._period
        self._slot = 0
        self.due = 0.0
        while self.due <= now:  # the slot that runs may be past its instant
            self.advance()

    def advance(self) -> float:
        """Move to the instant in the next slot and return it."""
        place = raised_cosine(self._draws.unit())
        self.due = self._start + (self._slot + place) * self._period
        self._slot += 1
        return self.due


def raised_cosine(unit: float) -> float:
    """Turn a uniform draw in (0, 1] into one of density 2 sin^2(pi x) on [0, 1]."""
    low, high = 0.0, 1.0
    for _ in range(RAISED_COSINE_BITS):
        middle = (low + high) / 2
        if middle - math.sin(math.tau * middle) / math.tau < unit:
            low = middle
        else:
            high = middle
    return (low + high) / 2


_LAWS: Final[Mapping[Clock, type[Renewal | Slotted | Constant]]] = {
    Clock.RENEWAL: Renewal,
    Clock.SLOTTED: Slotted,
    Clock.POISSON: Poisson,
    Clock.CONSTANT: Constant,
}


def law_of(clock: Clock, klass: int, key: Key, now: float) -> Law:
    """Begin the instants of a link, drawn from `key`; KeyError for `greedy`."""
    return _LAWS[clock](klass, key, now)
