# SPDX-License-Identifier: MIT
"""When mail departs by port 25: on ticks that nothing but the clock decides.

    tick n   at phase + n * period; the phase is drawn once, at the node's start

What comes between two ticks waits for the next one: lookups, connections and retries
begin there and nowhere else, so no message chooses an instant that a snooper of the
exit's line sees.  A tick that was missed (a machine that slept) is not made up for.

Who leaves on a tick, by the pool's kind; n are inside, each by itself has the chance

    none       all                                              1
    timed      share * n of them, a whole number by chance:     share
               which ones is drawn (Cottrell's timed pool,
               without its least number, which a flood fills)
    binomial   each by a coin of its own                        share
    poisson    each after an exponential delay, rounded up      1 - exp(-t / delay),
               to the next tick                                 t since the last tick,
                                                                or since it came

Invariants:
- A message's chance depends on the tick, on fresh randomness and on its own age, never
  on who else is there: who fills the pool (an n-1 attack) hastens nobody.
- Who has been inside for `max_delay` leaves at the next tick, whatever `min_entropy` says.
  In an alarm (alarm.py) there are no ticks, and no time passes here.
- The chances have no memory, so a restart begins anew and nobody leaves earlier by it.
- Those that leave together leave in an order that was drawn.

How well it mixes is told in bits: the entropy of the question which of all that came in
one that leaves is (Serjantov and Danezis, "Towards an Information Theoretic Metric for
Anonymity", PET 2002).  Of n inside at a tick, a came since the last one and who leaves
is each of them alike, so with q = a / n

    H = h(q) + q log2 a + (1 - q) H'      h the binary entropy, H' that of the last tick

    nominal      all count
    robust       without those of the s sources that have most inside: had they been in
                 one hand, this much is left
    guaranteed   nothing counts but the message itself and this node's own decoys

A tick with less than what is asked for may be held (nobody leaves but who has been
inside for `max_delay`); more never lets anybody leave sooner than his chance does.
"""

import math
from array import array
from collections import Counter, deque
from collections.abc import Collection, Iterator, Mapping, MutableSequence
from dataclasses import dataclass
from typing import Final, TypeAlias, TypeVar

from mesh.core.chance import uniform
from mesh.core.crypto import Entropy

_T = TypeVar("_T")

KINDS: Final = ("none", "timed", "binomial", "poisson")
SET_ASIDE: Final = 1
"""Sources, the largest, without which a tick must mix well enough: one remailer or peer
that floods us counts for nothing."""
NO_DECOYS: Final = b"decoys"
"""The source of this node's own decoys: it sends none yet."""
SLICE: Final = 4096
"""Members looked at between two turns of the loop: some 2 ms."""
KNOWN_SHARE: Final = 2
"""Names of places kept for each member, and SLICE: a peer can think of a new one for each
message."""
HISTORY: Final = 64
"""Ticks that the entropy looks back: at a share of 0.5 less than 2**-64 of a message
came before."""
DRAW_LEN: Final = 5
"""Octets a draw: among a million the likeliest is 2**-20 likelier than the others."""
DRAWS: Final = 512
"""Draws of one call for entropy."""


class Ticks:
    """The grid of ticks, `period` in seconds."""

    def __init__(self, period: float, entropy: Entropy) -> None:
        self._period = period
        self._phase = uniform(entropy, 0.0, period)

    def after(self, now: float) -> float:
        """Return the instant of the first tick that is later than `now`."""
        number = math.floor((now - self._phase) / self._period) + 1
        tick = self._phase + number * self._period
        # Rounding may put it at `now` itself: that one has been.
        return tick if tick > now else self._phase + (number + 1) * self._period


@dataclass(frozen=True)
class Manner:
    """How a pool mixes: `delay` (mean, `poisson` only) and `max_delay` in seconds."""

    kind: str = "none"
    share: float = 0.5
    delay: float = 60.0
    max_delay: float = 3600.0


class _Draws:
    """Numbers in [0, 1), many for one call."""

    def __init__(self, entropy: Entropy) -> None:
        self._entropy = entropy
        self._octets = b""
        self._at = 0

    def below(self, count: int) -> int:
        """Draw one of so many."""
        return int(self.fraction() * count)

    def fraction(self) -> float:
        """Draw a number, all alike."""
        if self._at >= len(self._octets):
            self._octets = self._entropy.octets(DRAW_LEN * DRAWS)
            self._at = 0
        draw = self._octets[self._at : self._at + DRAW_LEN]
        self._at += DRAW_LEN
        return int.from_bytes(draw, "big") / (1 << 8 * DRAW_LEN)


class _Members:
    """Who is inside, in no order that counts: 32 octets each."""

    def __init__(self) -> None:
        self.refs = array("Q")
        self.since = array("d")
        self.places: list[str] = []
        self.sources: list[bytes] = []

    def __len__(self) -> int:
        return len(self.refs)

    def add(self, ref: int, since: float, place: str, source: bytes) -> None:
        self.refs.append(ref)
        self.since.append(since)
        self.places.append(place)
        self.sources.append(source)

    def extend(self, other: "_Members") -> None:
        self.refs.extend(other.refs)
        self.since.extend(other.since)
        self.places.extend(other.places)
        self.sources.extend(other.sources)

    def take(self, at: int) -> tuple[int, float, str, bytes]:
        """Take one out; the last one gets its place."""
        found = self.refs[at], self.since[at], self.places[at], self.sources[at]
        _drop(self.refs, at)
        _drop(self.since, at)
        _drop(self.places, at)
        _drop(self.sources, at)
        return found


def _drop(column: MutableSequence[_T], at: int) -> None:
    last = column.pop()
    if at < len(column):
        column[at] = last


class Pool:
    """Records that wait for their tick.  Time is the caller's, in seconds."""

    def __init__(self, manner: Manner, entropy: Entropy) -> None:
        self._manner = manner
        self._draws = _Draws(entropy)
        self._members = _Members()
        self._ticking = _Members()
        """Who was inside when the tick that is under way began."""
        self._leaving: list[tuple[int, float, str]] = []
        """Who leaves on it, and has not been told to the caller yet."""
        self._known: dict[str, str] = {}
        self._ticked = -math.inf
        self.crowd = Crowd()

    def __len__(self) -> int:
        return len(self._members) + len(self._ticking)

    def notices(self) -> list[str]:
        """Say how well it mixes, while somebody is inside."""
        if self._manner.kind == "none" or not len(self):
            return []
        return [
            f"port 25: {self.crowd.nominal():.0f} bits of mixing, "
            f"{self.crowd.robust(SET_ASIDE):.0f} without the largest source, "
            f"{self.crowd.guaranteed(NO_DECOYS):.0f} guaranteed"
        ]

    def add(self, ref: int, place: str, source: bytes, since: float) -> None:
        """Take a record in; `since` may be earlier than now: it was inside before."""
        place = self._known.setdefault(place, place)
        self._members.add(ref, since, place, source)
        self.crowd.came(source)

    def take_all(self) -> list[tuple[int, float]]:
        """Take everybody out, who leaves by this on no tick: (ref, since).

        Also in the middle of a tick: who has not been told to the caller has not left.
        """
        members, self._members = self._members, _Members()
        members.extend(self._ticking)
        self._ticking = _Members()
        for source in members.sources:
            self.crowd.went(source)
        self._known.clear()
        leaving, self._leaving = self._leaving, []
        return [
            *zip(members.refs, members.since, strict=True),
            *((ref, since) for ref, since, _ in leaving),
        ]

    def tick(
        self, now: float, *, hold: bool = False
    ) -> Iterator[list[tuple[int, str]]]:
        """Let leave who leaves on this tick: lists of (ref, place), now and then empty.

        The caller may do other things between two of them.  Who comes meanwhile waits
        for the next tick.
        """
        if not hold:
            self.crowd.ticked()
        last, self._ticked = self._ticked, now
        self._ticking, self._members = self._members, _Members()
        try:
            for at in self._chosen(now, last, hold=hold):
                if at is not None:
                    ref, since, place, source = self._ticking.take(at)
                    self.crowd.went(source)
                    self._leaving.append((ref, since, place))
                else:
                    yield []
        finally:
            members, self._ticking = self._ticking, _Members()
            members.extend(self._members)
            self._members = members
            if len(self._known) > KNOWN_SHARE * len(members) + SLICE:
                self._known = {place: place for place in members.places}
        self._shuffle(self._leaving)
        while self._leaving:
            some = self._leaving[-SLICE:]
            del self._leaving[-SLICE:]
            yield [(ref, place) for ref, _, place in some]

    def _shuffle(self, some: MutableSequence[_T]) -> None:
        for at in range(len(some) - 1, 0, -1):
            other = self._draws.below(at + 1)
            some[at], some[other] = some[other], some[at]

    def _chosen(self, now: float, last: float, *, hold: bool) -> Iterator[int | None]:
        """Say who is to be taken out, one at a time; None: a good moment to rest.

        Whoever does something else meanwhile may have taken all out.
        """
        timed = self._manner.kind == "timed"
        oldest = now - self._manner.max_delay
        for at in range(len(self._ticking) - 1, -1, -1):  # what `take` moves was seen
            since = self._ticking.since[at]
            if since <= oldest or not (
                hold
                or timed
                or self._draws.fraction() >= self._chance(now - max(last, since))
            ):
                yield at
            if not at % SLICE:
                yield None
                if not len(self._ticking):
                    return
        if timed and not hold:
            share = len(self._ticking) * self._manner.share
            for count in range(math.floor(share + self._draws.fraction())):
                yield self._draws.below(len(self._ticking))
                if not (count + 1) % SLICE:
                    yield None
                    if not len(self._ticking):
                        return

    def _chance(self, waited: float) -> float:
        if self._manner.kind == "poisson":
            return -math.expm1(-waited / self._manner.delay)
        return self._manner.share if self._manner.kind == "binomial" else 1.0


_Counts: TypeAlias = Mapping[bytes, int]


class Crowd:
    """Among how many one that leaves is hidden, by who brought them."""

    def __init__(self) -> None:
        self._arrived: Counter[bytes] = Counter()
        self._inside: Counter[bytes] = Counter()
        self._history: deque[tuple[_Counts, _Counts]] = deque(maxlen=HISTORY)

    def came(self, source: bytes) -> None:
        """Count one that came in."""
        self._arrived[source] += 1
        self._inside[source] += 1

    def went(self, source: bytes) -> None:
        """Count one that left; a source of which nothing is left is forgotten."""
        self._inside[source] -= 1
        if not self._inside[source]:
            del self._inside[source]

    def ticked(self) -> None:
        """Note who is inside at a tick that is not held, before anybody leaves."""
        self._history.append((dict(self._arrived), dict(self._inside)))
        self._arrived.clear()

    def nominal(self) -> float:
        """Bits of one that left on the tick now, if all count."""
        return self._bits(frozenset())

    def robust(self, sources: int) -> float:
        """The same without those of the so many sources that have most inside."""
        most = self._inside.most_common(sources)
        return self._bits(frozenset(source for source, _ in most))

    def guaranteed(self, decoys: bytes) -> float:
        """The same if nothing counts but itself and this node's own decoys."""
        others = {source for row in self._rows() for source in row[1]} - {decoys}
        return self._bits(others, itself=1)

    def _rows(self) -> Iterator[tuple[_Counts, _Counts]]:
        """All ticks, and the one that would be now."""
        yield from self._history
        yield self._arrived, self._inside

    def _bits(self, without: Collection[bytes], itself: int = 0) -> float:
        bits = 0.0
        rows = list(self._rows())
        for number, (arrived, inside) in enumerate(rows, 1):
            own = itself if number == len(rows) else 0
            came = own + _count(arrived, without)
            here = own + _count(inside, without)
            # What left before a change of routes came back counts as having come.
            share = min(1.0, came / here) if here else 0.0
            came_now = min(came, here)
            bits = (1.0 - share) * bits + _binary(share)
            bits += share * math.log2(came_now) if came_now else 0.0
            if not here:
                bits = 0.0
        return bits


def _count(counts: _Counts, without: Collection[bytes]) -> int:
    return sum(count for source, count in counts.items() if source not in without)


def _binary(share: float) -> float:
    """Entropy of a coin, in bits."""
    return -sum(p * math.log2(p) for p in (share, 1.0 - share) if p)
