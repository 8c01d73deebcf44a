# SPDX-License-Identifier: MIT
"""The n-1 attack and the alarm against it, once: simulated with the node's own code.

False holds: heartbeats of which 5 % get lost, the others back after what four instants of
a link's clock and two commits take; each tick asks `Alarm.holds`.

The attack: mail comes to a pool as a Poisson process.  At an instant nobody can foretell
all of it stops but the target, and all heartbeats with it.  The attacker knows how many
ticks are left until the pool holds, and lets the target in before the last of them, or the
one before, whichever is better for him.  He wins when it leaves with nobody else inside.
After `HOLD_SECONDS` he wins for certain where `after_hold = "release"`, and never where
it is `"keep"`.

One trial is a pool and, for each place, an alarm: where the target comes in is all that
the alarm says to the pool.  So a pool, whose time is counted in ticks, is filled once, and
goes on from there as often as there are other ticks to come in at, each time as it was and
with the same randomness.
"""

import heapq
import pickle
import random
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final, TypeAlias

from mesh.core.alarm import Alarm
from mesh.core.crypto import Key
from mesh.core.pool import Manner, Pool

LOSS: Final = 0.05
COMMIT_SECONDS: Final = 0.05
INSTANTS: Final = 4
TARGET: Final = 1 << 63
STEP_SECONDS: Final = 0.01
WARM_TICKS: Final = 16
"""After which a pool has forgotten that it began empty."""


class Drawn:
    """Entropy of a seed, to be repeated."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)  # noqa: S311  # a simulation

    def octets(self, length: int) -> bytes:
        """Draw some."""
        return self.random.randbytes(length)

    def key(self) -> Key:
        """Draw a key."""
        return Key.from_bytes(self.octets(32))


@dataclass(frozen=True)
class Place:
    """A node's links, by their periods, and its ticks, in seconds."""

    periods: tuple[float, ...]
    tick: float

    def __str__(self) -> str:
        """Say it in a table."""
        kinds = sorted(set(self.periods))
        links = ", ".join(f"{self.periods.count(p)} of {1 / p:g}/s" for p in kinds)
        return f"{links}; tick {self.tick:g} s"

    @property
    def peers(self) -> dict[str, float]:
        """As an alarm has them."""
        return {f"p{number}": period for number, period in enumerate(self.periods)}


def alarm_of(place: Place, entropy: Drawn) -> Alarm:
    """Make one that has heard the first beat of each peer."""
    alarm = Alarm(entropy.key(), entropy, place.tick)
    for _, content in alarm.beats(0.0, place.peers):
        alarm.came_untrusted(content, 0.0)
    return alarm


def under_way(period: float, entropy: Drawn) -> float:
    """Draw how long a beat is on its way: Erlang-4 gaps and two commits."""
    draw = entropy.random.gammavariate
    # Gaps are Erlang-4, and so many of them together Erlang-4n: one draw.
    return draw(4 * INSTANTS, period / 4) + draw(2, COMMIT_SECONDS)


def false_holds(place: Place, seconds: float, seed: int) -> tuple[int, int]:
    """Count holds without an attack, and beats."""
    entropy = Drawn(seed)
    alarm, peers = alarm_of(place, entropy), place.peers
    coming: list[tuple[float, bytes]] = []
    now, tick, holds, beats, held = 0.0, place.tick, 0, 0, False
    while now < seconds:
        now = max(alarm.next_due(now), now + STEP_SECONDS)
        while tick <= now:
            _deliver(alarm, coming, tick)
            was, held = held, alarm.holds(tick)
            holds += held and not was
            tick += place.tick
        for name, content in alarm.beats(now, peers):
            beats += 1
            if entropy.random.random() >= LOSS:
                heapq.heappush(coming, (now + under_way(peers[name], entropy), content))
    return holds, beats


def _deliver(alarm: Alarm, coming: list[tuple[float, bytes]], now: float) -> None:
    while coming and coming[0][0] <= now:
        at, content = heapq.heappop(coming)
        alarm.came_untrusted(content, at)


def ticks_left(place: Place, entropy: Drawn) -> int:
    """Say how many ticks there are from the cut to the hold."""
    alarm, now = alarm_of(place, entropy), 0.0
    # Links have beats of their own times; the cut falls anywhere among them.
    cut = entropy.random.uniform(1, 2) * max(map(alarm.interval, place.periods))
    while now < cut:
        for _, content in alarm.beats(now, place.peers):
            alarm.came_untrusted(content, now)
        now = max(alarm.next_due(now), now + STEP_SECONDS)
    tick = cut + entropy.random.uniform(0, place.tick)
    count = 0
    while not alarm.holds(tick):
        count += 1
        tick += place.tick
    return count


def filled(manner: Manner, rate: float, entropy: Drawn) -> Pool:
    """Give a pool that mail came to for a while; its time is counted in ticks."""
    pool = Pool(manner, entropy)
    for now in range(WARM_TICKS):
        for number in range(_poisson(entropy, rate)):
            pool.add(number, "x", b"s", now)
        _tick(pool, now + 1.0)
    return pool


def manner_of(kind: str) -> Manner:
    """Give a pool's manner, by ticks."""
    return Manner(kind, delay=2.0, max_delay=1e9)


Try: TypeAlias = tuple[int, int]
"""Ticks from the cut to the hold, and how many before the last one the target comes."""


def wins(
    manner: Manner, rate: float, lefts: Collection[int], seed: int
) -> dict[Try, bool]:
    """Try each number of ticks, early and late, on one pool; whether he wins."""
    pool, found = filled(manner, rate, Drawn(seed)), {}
    tries = {(left, early) for left in lefts if left for early in (0, 1)}
    for number in range(max(lefts, default=0)):
        now = float(WARM_TICKS + number)
        there = [each for each in tries if came(*each) == number]
        state = pickle.dumps(pool) if there else b""
        for left, early in there:
            again: Pool = pickle.loads(state)  # noqa: S301  # our own
            found[left, early] = leaves_alone(again, now, left - number)
        _tick(pool, now + 1)
    return found


def came(left: int, early: int) -> int:
    """Say at which tick the target is let in."""
    return max(0, left - 1 - early)


def leaves_alone(pool: Pool, now: float, ticks: int) -> bool:
    """Let the target in; whether it leaves on one of so many ticks, with nobody else."""
    pool.add(TARGET, "x", b"t", now)
    for number in range(ticks):
        gone = _tick(pool, now + number + 1)
        if TARGET in gone:
            return len(gone) == 1 and not len(pool)
    return False


def _poisson(entropy: Drawn, rate: float) -> int:
    count, left = 0, entropy.random.expovariate(1.0)
    while left < rate:
        count += 1
        left += entropy.random.expovariate(1.0)
    return count


def _tick(pool: Pool, now: float) -> list[int]:
    return [ref for some in pool.tick(now) for ref, _ in some]
