# SPDX-License-Identifier: MIT
"""Whose turn it is: the domains outside that are visited at once, none of them starved.

    a domain   becomes                  when
    in line    wanted, not resting      at a tick, behind those that are there
    visited    first in line, room      at a tick
    resting    its visit failed         core/retry.py, OUTSIDE
    forgotten  not wanted, not visited  after the longest rest, twice; sooner when more
                                        than KNOWN_MAX are known

    room       VISITS_MAX visits, NETWORK_MAX of them in one network

A network is known once a visit has one to connect to: it enters there, or finds it full
and goes back into the line; from then on the network counts before a visit begins.

While domains wait for room, as many of the oldest visits in their way are hurried:

    TURN_SECONDS old   takes no more messages: it ends when what is under way has ended
    CUT_SECONDS old    is cut off, whatever it is doing

So a server that takes its time holds up others for CUT_SECONDS and a tick at most, for
each VISITS_MAX domains that were in line before them, or NETWORK_MAX of one network.

Invariants: a domain is visited once at a time, and never while it rests; who comes
first in line is visited first, but for a network that is full; nothing begins but in
`tick`.  Time is the caller's, in seconds.
"""

from collections import Counter
from collections.abc import Container, Iterable
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

from mesh.core.crypto import Entropy
from mesh.core.retry import OUTSIDE, retry_delay

VISITS_MAX: Final = 64
"""Domains visited at once: each holds a socket and up to two messages."""
NETWORK_MAX: Final = 8
"""Visits in one network: an eighth, so that one holder's servers cannot take up all;
enough for 48 domains a minute at a large provider with ticks of 10 s."""
TURN_SECONDS: Final = 60.0
"""Ten times what a hundred messages take at a server that does not tarry."""
CUT_SECONDS: Final = 300.0
"""RFC 5321 4.5.3.2 asks for 5 minutes of patience with a greeting, MAIL or RCPT; a
message of 20 MiB takes as long at 70 kB/s."""
FORGET_SECONDS: Final = 2 * OUTSIDE.longest
"""A domain that was quiet for so long begins anew."""
KNOWN_MAX: Final = 16_384
"""Domains known without mail for them, some 4 MB: names cost whoever invents them
nothing.  Those that wait are as many as have mail in the spool, which has its own end."""

_LONG_AGO: Final = float("-inf")


@dataclass
class _Domain:
    """What is known of one."""

    network: str = ""  # where its visit is, or was last time
    failures: int = 0
    rests_until: float = _LONG_AGO


@dataclass(frozen=True)
class Tick:
    """What a tick brought: names of domains."""

    begun: list[str] = field(default_factory=list)
    """Their visits begin."""
    hurried: set[str] = field(default_factory=set)
    """Their visits take no more messages."""
    cut: set[str] = field(default_factory=set)
    """Their visits are to end now."""


class Turns:
    """Says whose visits begin, and whose must end."""

    def __init__(self, entropy: Entropy) -> None:
        self._entropy = entropy
        self._domains: dict[str, _Domain] = {}
        self._visited: dict[str, float] = {}  # since when: the oldest visit first
        self._line: dict[str, None] = {}  # in its order
        self._looked = _LONG_AGO

    @property
    def visited(self) -> int:
        """Visits under way."""
        return len(self._visited)

    @property
    def known(self) -> int:
        """Domains of which something is remembered."""
        return len(self._domains)

    def tick(self, now: float, wanted: Iterable[str]) -> Tick:
        """Begin what has room; each that is begun calls `end` in its time."""
        names = dict.fromkeys(wanted)
        for name in [name for name in self._line if name not in names]:
            del self._line[name]
        self._forget(now, names)
        for name in names:
            if name not in self._line and name not in self._visited:
                domain = self._domains.setdefault(name, _Domain())
                if now >= domain.rests_until:
                    self._line[name] = None
        return self._begin(now)

    def _begin(self, now: float) -> Tick:
        tick = Tick()
        blocked: Counter[str] = Counter()
        crowds = Counter(self._domains[name].network for name in self._visited)
        for name in self._line:
            if len(self._visited) >= VISITS_MAX:
                blocked[""] = len(self._line) - len(tick.begun) - blocked.total()
                break
            network = self._domains[name].network
            if network and crowds[network] >= NETWORK_MAX:
                blocked[network] += 1
            else:
                crowds[network] += 1
                self._visited[name] = now
                tick.begun.append(name)
        for name in tick.begun:
            del self._line[name]
        for network, count in blocked.items():
            self._hurry(now, network, count, tick)
        return tick

    def _hurry(self, now: float, network: str, count: int, tick: Tick) -> None:
        """Make the oldest visits of a network, "" for all, end for so many others."""
        in_the_way = (
            (name, now - begun)
            for name, begun in self._visited.items()
            if network in ("", self._domains[name].network)
        )
        for name, age in islice(in_the_way, count):
            if age >= CUT_SECONDS:
                tick.cut.add(name)
            elif age >= TURN_SECONDS:
                tick.hurried.add(name)

    def _forget(self, now: float, wanted: Container[str]) -> None:
        """Forget who was quiet for long; of too many, who was visited longest ago."""
        too_many = len(self._domains) - KNOWN_MAX
        if now < self._looked + FORGET_SECONDS / 8 and too_many <= 0:
            return
        self._looked = now
        for name, domain in list(self._domains.items()):
            is_old = now >= domain.rests_until + FORGET_SECONDS or too_many > 0
            if is_old and name not in wanted and name not in self._visited:
                del self._domains[name]
                too_many -= 1

    def enter(self, name: str, network: str) -> bool:
        """Say whether this visit may connect there; if not, it ends, untried."""
        others = sum(
            each != name and self._domains[each].network == network
            for each in self._visited
        )
        self._domains[name].network = network
        return others < NETWORK_MAX

    def end(self, name: str, now: float, *, tried: bool, failed: bool) -> None:
        """Hear that a visit has ended; if it was tried and failed, the domain rests."""
        del self._visited[name]
        domain = self._domains[name] = self._domains.pop(name)  # behind all others
        if failed:
            domain.failures += 1
            rest = retry_delay(domain.failures, self._entropy, OUTSIDE)
            domain.rests_until = now + rest
        elif tried:
            domain.failures = 0
