# SPDX-License-Identifier: MIT
"""What the n-1 alarm costs and what it leaves an attacker: simulated with the real code.

    python -m benchmarks.alarm [--months M] [--trials N] [--processes N]

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
with the same randomness.  Trials are shared out among processes.
"""

import argparse
import heapq
import multiprocessing
import os
import pickle
import random
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from itertools import product
from typing import Any, Final, TypeAlias

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from benchmarks.result import Chart, Figure, Result, Scale, Tell, single
from mesh.core.alarm import Alarm
from mesh.core.crypto import Key
from mesh.core.pool import Manner, Pool

MONTH_SECONDS: Final = 30 * 86_400.0
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


PLACES: Final = (
    Place((1.0,), 10.0),
    Place((1.0,) * 4, 10.0),
    Place((1.0,) * 4, 120.0),
    Place((1 / 64,) * 4, 10.0),
    Place((1 / 64,) * 3 + (8.0,), 10.0),
)
RATES: Final = (2.0, 5.0, 10.0, 20.0, 50.0)
"""Messages that come in a tick."""
KINDS: Final = ("timed", "binomial", "poisson")


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


# many trials

Cell: TypeAlias = tuple[int, str, float]
"""A place, by its number; a pool's kind; a rate."""
PART: Final = 50
"""Trials of one piece of work."""


def part(places: Sequence[Place], seeds: range) -> Counter[tuple[Cell, int]]:
    """Count the wins, for each kind and rate, of an early target and of a late one."""
    won: Counter[tuple[Cell, int]] = Counter()
    for seed in seeds:
        lefts = [ticks_left(place, Drawn(seed)) for place in places]
        for kind, rate in product(KINDS, RATES):
            found = wins(manner_of(kind), rate, set(lefts), seed)
            for number, left in enumerate(lefts):
                for early in (0, 1):
                    won[(number, kind, rate), early] += found.get((left, early), False)
    return won


@dataclass(frozen=True)
class Simulated:
    """What came of it."""

    holds: Mapping[int, tuple[int, int]]
    """By place: holds without an attack, and beats."""
    chances: Mapping[Cell, float]
    """Of the attacker."""


def simulate(
    places: Sequence[Place],
    months: float,
    trials: int,
    done: Callable[[float], None],
    processes: int = 0,
) -> Simulated:
    """Do it all, in so many processes (0: one for each core); `done` hears the share.

    What comes of it does not depend on how many they are.
    """
    # Threads may be running: a process that is forked would have half of them.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes or os.cpu_count(), context) as pool:
        asked = {
            pool.submit(false_holds, places[number], months * MONTH_SECONDS, 1): number
            for number in sorted(range(len(places)), key=lambda n: -_beats(places[n]))
        }
        parts = [
            pool.submit(part, places, range(at, min(at + PART, trials)))
            for at in range(0, trials, PART)
        ]
        every: list[Future[Any]] = [*asked, *parts]
        for count, _ in enumerate(as_completed(every), 1):
            done(count / len(every))
        holds = {number: future.result() for future, number in asked.items()}
        won = sum((future.result() for future in parts), Counter())
    cells = list(product(range(len(places)), KINDS, RATES))
    best = {cell: max(won[cell, early] for early in (0, 1)) / trials for cell in cells}
    return Simulated(holds, best)


def _beats(place: Place) -> float:
    """Say about how much there is to do."""
    return sum(1 / alarm_of(place, Drawn(1)).interval(each) for each in place.periods)


def run(scale: Scale, tell: Tell) -> Result:
    """Simulate for the suite."""
    months, trials = scale.of(1000, 10) / 1000, scale.of(1000, 20)
    places = PLACES[1:2] if scale.is_quick else PLACES
    found = simulate(places, months, trials, lambda share: tell("simulated", share))
    figures: list[Figure] = []
    charts: list[Chart] = []
    for number, place in enumerate(places):
        said = f"false holds in {months:g} months, {place}"
        figures.append(single(said, "holds", found.holds[number][0], at_least=False))
        curves = {
            kind: [(rate, found.chances[number, kind, rate]) for rate in RATES]
            for kind in KINDS
        }
        charts.append(Chart(f"Attacker's chance, {place}", "messages a tick", curves))
    return Result("alarm", "The n-1 alarm, simulated", tuple(figures), tuple(charts))


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--months", type=float, default=1.0)
    parser.add_argument("--trials", type=int, default=4000)
    parser.add_argument("--processes", type=int, default=0, help="default: the cores")
    args = parser.parse_args()
    console = Console(width=110)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("holds and attacks", total=1.0)

        def done(share: float) -> None:
            progress.update(task, completed=share)

        found = simulate(PLACES, args.months, args.trials, done, args.processes)
    screen = Table("links", "alarm after", "ticks", "beats", "false holds")
    attacks = Table("pool", *(f"{rate:g} a tick" for rate in RATES))
    for number, place in enumerate(PLACES):
        windows = sorted(map(alarm_of(place, Drawn(1)).window, place.periods))
        last = windows[len(windows) // 2]  # then fewer than half are fresh
        ticks = sum(ticks_left(place, Drawn(n)) for n in range(100)) / 100
        holds, beats = found.holds[number]
        screen.add_row(
            str(place), f"{last:.0f} s", f"{ticks:.1f}", f"{beats:,}", str(holds)
        )
        for kind in KINDS:
            row = (f"{found.chances[number, kind, rate]:.4f}" for rate in RATES)
            attacks.add_row(f"{kind}: {place}", *row)
    console.print(screen)
    console.print(attacks)
    print(
        f"{args.months:g} months at {LOSS:.0%} loss; chance that the target leaves alone, "
        f"of {args.trials} attacks each (none: below {3 / args.trials:.1e} at 95 %)"
    )


if __name__ == "__main__":
    main()
