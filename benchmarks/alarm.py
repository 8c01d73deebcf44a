# SPDX-License-Identifier: MIT
"""What the n-1 alarm costs and what it leaves an attacker: simulated with the real code.

    python -m benchmarks.alarm [--months M] [--trials N]

False holds: heartbeats of which 5 % get lost, the others back after what four instants of
a link's clock and two commits take; each tick asks `Alarm.holds`.  Beside the count stands
what 0.05**LOST_MAX gives for so many beats.

The attack: mail comes to a pool as a Poisson process.  At an instant nobody can foretell
all of it stops but the target, and all heartbeats with it.  The attacker knows how many
ticks are left until the pool holds, and lets the target in before the last of them, or the
one before, whichever is better for him.  He wins when it leaves with nobody else inside.
After `HOLD_SECONDS` he wins for certain where `after_hold = "release"`, and never where
it is `"keep"`.
"""

import argparse
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from mesh.core.alarm import LOST_MAX, Alarm
from mesh.core.crypto import Key
from mesh.core.pool import Manner, Pool

MONTH_SECONDS: Final = 30 * 86_400.0
LOSS: Final = 0.05
COMMIT_SECONDS: Final = 0.05
INSTANTS: Final = 4
TARGET: Final = 1 << 63
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
    """A node's links and its ticks, in seconds."""

    links: int
    period: float
    tick: float

    def __str__(self) -> str:
        """Say it in a table."""
        return f"{self.links} of {1 / self.period:g} cells/s, tick {self.tick:g} s"

    @property
    def peers(self) -> dict[str, float]:
        """As an alarm has them."""
        return {f"p{number}": self.period for number in range(self.links)}


PLACES: Final = (
    Place(1, 1.0, 10.0),
    Place(4, 1.0, 10.0),
    Place(4, 1.0, 60.0),
    Place(4, 1 / 64, 10.0),
)
RATES: Final = (2.0, 5.0, 10.0, 20.0, 50.0)
"""Messages that come in a tick."""
KINDS: Final = ("timed", "binomial", "poisson")


def alarm_of(place: Place, entropy: Drawn) -> Alarm:
    """Make one that has heard its first beat."""
    alarm = Alarm(entropy.key(), entropy, place.tick)
    sent = alarm.beat(0.0, place.peers)
    if sent is not None:
        alarm.came_untrusted(sent[1], 0.0)
    return alarm


def under_way(place: Place, entropy: Drawn) -> float:
    """Draw how long a beat is on its way: Erlang-4 gaps and two commits."""
    draw = entropy.random.gammavariate
    gaps = sum(draw(4, place.period / 4) for _ in range(INSTANTS))
    return gaps + draw(2, COMMIT_SECONDS)


def false_holds(place: Place, seconds: float, seed: int) -> tuple[int, int]:
    """Count holds without an attack, and beats."""
    entropy = Drawn(seed)
    alarm = alarm_of(place, entropy)
    coming: list[tuple[float, bytes]] = []
    now, tick, holds, beats, held = 0.0, place.tick, 0, 0, False
    while now < seconds:
        now += alarm.interval
        while tick <= now:
            for at, content in coming:
                if at <= tick:
                    alarm.came_untrusted(content, at)
            coming = [each for each in coming if each[0] > tick]
            holds += alarm.holds(tick) and not held
            held = alarm.holds(tick)
            tick += place.tick
        sent = alarm.beat(now, place.peers)
        beats += 1
        if sent and entropy.random.random() >= LOSS:
            coming.append((now + under_way(place, entropy), sent[1]))
    return holds, beats


def ticks_left(place: Place, entropy: Drawn) -> int:
    """Say how many ticks there are between the last beat that came and the hold."""
    alarm = alarm_of(place, entropy)
    # The block falls somewhere between two beats, the ticks anywhere.
    now = entropy.random.uniform(0, alarm.interval)
    tick = now + entropy.random.uniform(0, place.tick)
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
            screen.add_row(
                str(place),
                f"{alarm.interval:g} s",
                f"{alarm.window:.0f} s",
                f"{beats:,}",
                str(holds),
                f"{beats * (1 - LOSS) * LOSS**LOST_MAX:.2f}",
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
