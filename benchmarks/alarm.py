# SPDX-License-Identifier: MIT
"""What the n-1 alarm costs and what it leaves an attacker: simulated with the real code.

    python -m benchmarks.alarm [--months M] [--trials N]

False holds: heartbeats of which 5 % get lost, the others back after what four instants of
a link's clock and two commits take; each tick asks `Alarm.holds`.

The attack: mail comes to a pool as a Poisson process.  At an instant nobody can foretell
all of it stops but the target, and all heartbeats with it.  The attacker knows how many
ticks are left until the pool holds, and lets the target in before the last of them, or the
one before, whichever is better for him.  He wins when it leaves with nobody else inside.
After `HOLD_SECONDS` he wins for certain where `after_hold = "release"`, and never where
it is `"keep"`.
"""

import argparse
import heapq
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from rich.console import Console
from rich.progress import Progress
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
    gaps = sum(draw(4, period / 4) for _ in range(INSTANTS))
    return gaps + draw(2, COMMIT_SECONDS)


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


def attack(place: Place, manner: Manner, rate: float, early: int, seed: int) -> bool:
    """Try once, the target coming before the last tick but `early`; whether he wins."""
    entropy = Drawn(seed)
    pool = Pool(manner, entropy)
    now = 0.0
    for _ in range(WARM_TICKS):
        for number in range(_poisson(entropy, rate)):
            pool.add(number, "x", b"s", now)
        now += place.tick
        _tick(pool, now)
    left = ticks_left(place, entropy)
    came = max(0, left - 1 - early)
    for number in range(left):
        if number == came:
            pool.add(TARGET, "x", b"t", now)
        now += place.tick
        gone = _tick(pool, now)
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


def chances(place: Place, kind: str, trials: int) -> Iterator[float]:
    """Give the attacker's chance, for each rate of other mail."""
    manner = Manner(kind, delay=2 * place.tick, max_delay=1e9)
    for rate in RATES:
        wins = [
            sum(attack(place, manner, rate, early, seed) for seed in range(trials))
            for early in (0, 1)
        ]
        yield max(wins) / trials


def run(scale: Scale, tell: Tell) -> Result:
    """Simulate for the suite."""
    months, trials = scale.of(1000, 10) / 1000, scale.of(1000, 20)
    places = PLACES[1:2] if scale.is_quick else PLACES
    figures: list[Figure] = []
    charts: list[Chart] = []
    for number, place in enumerate(places):
        tell(str(place), number / len(places))
        holds, _ = false_holds(place, months * MONTH_SECONDS, 1)
        said = f"false holds in {months:g} months, {place}"
        figures.append(single(said, "holds", holds, at_least=False))
        curves = {
            kind: list(zip(RATES, chances(place, kind, trials), strict=True))
            for kind in KINDS
        }
        charts.append(Chart(f"Attacker's chance, {place}", "messages a tick", curves))
    return Result("alarm", "The n-1 alarm, simulated", tuple(figures), tuple(charts))


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--months", type=float, default=1.0)
    parser.add_argument("--trials", type=int, default=4000)
    args = parser.parse_args()
    console = Console(width=110)
    screen = Table(
        "links", "a beat each", "alarm after", "beats", "false holds", "by theory"
    )
    attacks = Table("pool", *(f"{rate:g} a tick" for rate in RATES))
    with Progress(transient=True) as progress:
        task = progress.add_task("places", total=len(PLACES) * (1 + len(KINDS)))
        for place in PLACES:
            alarm = alarm_of(place, Drawn(1))
            holds, beats = false_holds(place, args.months * MONTH_SECONDS, 1)
            windows = sorted(map(alarm.window, place.periods))
            last = windows[len(windows) // 2]  # then fewer than half are fresh
            ticks = sum(ticks_left(place, Drawn(n)) for n in range(100)) / 100
            screen.add_row(
                str(place), f"{last:.0f} s", f"{ticks:.1f}", f"{beats:,}", str(holds)
            )
            progress.advance(task)
            for kind in KINDS:
                row = (f"{chance:.4f}" for chance in chances(place, kind, args.trials))
                attacks.add_row(f"{kind}: {place}", *row)
                progress.advance(task)
    console.print(screen)
    console.print(attacks)
    print(
        f"{args.months:g} months at {LOSS:.0%} loss; chance that the target leaves alone, "
        f"of {args.trials} attacks each (none: below {3 / args.trials:.1e} at 95 %)"
    )


if __name__ == "__main__":
    main()
