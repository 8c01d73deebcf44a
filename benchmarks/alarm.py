# SPDX-License-Identifier: MIT
"""What the n-1 alarm costs and what it leaves an attacker: simulated with the real code.

    python -m benchmarks.alarm [--months M] [--trials N] [--promised N] [--processes N]

How one trial goes: attack.py.  Trials are shared out among processes.

What is promised: a false hold a month at most, and that who keeps all mail but his target
from the pool sees it leave alone in one attack of a thousand at most, where

    the pool   is `timed`, half of it leaves on a tick, and ten messages come in one
    the ticks  are long enough for the links: the alarm comes TICKS_MAX of them after the
               cut at most, and `mesh status` says nothing of `tick_seconds`

The latter is shown by the upper 95 % limit, of PROMISED_TRIALS attacks.  Where it does not
hold stands beside it: with five messages a tick, and with two; with the other kinds, which
want more messages, since how many stay is chance; and with the default tick of 10 s and
one cell a second, where the alarm comes 20 ticks late, the pool is empty by then, and he
wins as if there were no alarm.
"""

import argparse
import multiprocessing
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from itertools import product
from typing import Any, Final, TypeAlias

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from benchmarks.attack import (
    LOSS,
    Drawn,
    Place,
    alarm_of,
    false_holds,
    manner_of,
    ticks_left,
    wins,
)
from benchmarks.result import Chart, Figure, Result, Scale, Tell, single
from mesh.audit.statistics import share_upper
from mesh.core.alarm import TICKS_MAX, long_enough

MONTH_SECONDS: Final = 30 * 86_400.0
PLACES: Final = (
    Place((1.0,), 10.0),
    Place((1.0,) * 4, 10.0),
    Place((1.0,) * 4, float(long_enough([1.0]))),  # as `mesh status` advises
    Place((1.0,) * 4, 120.0),
    Place((1 / 8,) * 4, 30.0),
    Place((1 / 64,) * 4, 10.0),
    Place((1 / 64,) * 3 + (8.0,), 10.0),
)
RATES: Final = (2.0, 5.0, 10.0, 20.0, 50.0)
"""Messages that come in a tick."""
KINDS: Final = ("timed", "binomial", "poisson")
Curve: TypeAlias = tuple[str, float]
"""A pool's kind, and a rate."""
CURVES: Final[Sequence[Curve]] = tuple(product(KINDS, RATES))
PROMISED: Final[Curve] = ("timed", 10.0)
PROMISED_CHANCE: Final = 1e-3
PROMISED_TRIALS: Final = 10_000
"""Four of them may be won, and the upper limit is still below what is promised."""
PROMISED_HOLDS: Final = 1.0
"""False ones a month."""
Cell: TypeAlias = tuple[int, str, float]
"""A place, by its number; a pool's kind; a rate."""
PART: Final = 50
"""Trials of one piece of work."""


@dataclass(frozen=True)
class Chance:
    """How many attacks were won, of how many."""

    won: int
    trials: int

    def __str__(self) -> str:
        """Say it in a table, with its upper 95 % limit."""
        return f"{self.share:.4f} <{self.upper:.4f}"

    @property
    def share(self) -> float:
        """Of those that were tried."""
        return self.won / self.trials

    @property
    def upper(self) -> float:
        """What it is not above, at 95 %."""
        return share_upper(self.won, self.trials)


def part(
    places: Sequence[Place], seeds: range, curves: Sequence[Curve] = CURVES
) -> Counter[tuple[Cell, int]]:
    """Count the wins, for each kind and rate, of an early target and of a late one."""
    won: Counter[tuple[Cell, int]] = Counter()
    for seed in seeds:
        lefts = [ticks_left(place, Drawn(seed)) for place in places]
        for kind, rate in curves:
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
    chances: Mapping[Cell, Chance]
    """Of the attacker; the better of his two ways."""


def simulate(
    places: Sequence[Place],
    months: float,
    trials: int,
    done: Callable[[float], None],
    processes: int = 0,
    promised: int = 0,
) -> Simulated:
    """Do it all, in so many processes (0: one for each core); `done` hears the share.

    Of what is promised there are `promised` trials, if that is more.  What comes of it
    does not depend on how many processes there are.
    """
    # Threads may be running: a process that is forked would have half of them.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes or os.cpu_count(), context) as pool:
        asked = {
            pool.submit(false_holds, places[number], months * MONTH_SECONDS, 1): number
            for number in sorted(range(len(places)), key=lambda n: -_beats(places[n]))
        }
        parts = [
            pool.submit(part, places, seeds, curves)
            for curves, begin, end in (
                (CURVES, 0, trials),
                ([PROMISED], trials, promised),
            )
            for at in range(begin, end, PART)
            for seeds in [range(at, min(at + PART, end))]
        ]
        every: list[Future[Any]] = [*asked, *parts]
        for count, _ in enumerate(as_completed(every), 1):
            done(count / len(every))
        holds = {number: future.result() for future, number in asked.items()}
        won = sum((future.result() for future in parts), Counter())
    counts = dict.fromkeys(CURVES, trials) | {PROMISED: max(trials, promised)}
    best = {
        (number, *curve): Chance(max(won[(number, *curve), n] for n in (0, 1)), count)
        for number, (curve, count) in product(range(len(places)), counts.items())
    }
    return Simulated(holds, best)


def _beats(place: Place) -> float:
    """Say about how much there is to do."""
    return sum(1 / alarm_of(place, Drawn(1)).interval(each) for each in place.periods)


def keeps_the_promise(place: Place) -> bool:
    """Whether its ticks are long enough for its links."""
    return alarm_of(place, Drawn(1)).ticks_late(place.periods) <= TICKS_MAX


def figures_of(
    number: int, place: Place, found: Simulated, months: float, *, is_bound: bool
) -> list[Figure]:
    """Say what was found at a place, beside what is promised."""
    chance = found.chances[number, *PROMISED]
    bound = PROMISED_CHANCE if is_bound and keeps_the_promise(place) else None
    holds = PROMISED_HOLDS * months if is_bound else None
    return [
        single(
            f"false holds in {months:g} months, {place}",
            "holds",
            found.holds[number][0],
            holds,
            at_least=False,
        ),
        single(
            f"chance that a target leaves alone, {place}, {PROMISED[1]:g} a tick: "
            "upper 95 % limit",
            "",
            chance.upper,
            bound,
            at_least=False,
        ),
    ]


def run(scale: Scale, tell: Tell) -> Result:
    """Simulate for the suite."""
    months, trials = scale.of(1000, 10) / 1000, scale.of(1000, 20)
    places = PLACES[1:2] if scale.is_quick else PLACES
    promised = scale.of(PROMISED_TRIALS, 0)
    found = simulate(
        places, months, trials, lambda share: tell("simulated", share), 0, promised
    )
    figures: list[Figure] = []
    charts: list[Chart] = []
    for number, place in enumerate(places):
        # So few trials show nothing, neither way.
        is_bound = not scale.is_quick
        figures += figures_of(number, place, found, months, is_bound=is_bound)
        curves = {
            kind: [(rate, found.chances[number, kind, rate].share) for rate in RATES]
            for kind in KINDS
        }
        charts.append(Chart(f"Attacker's chance, {place}", "messages a tick", curves))
    return Result("alarm", "The n-1 alarm, simulated", tuple(figures), tuple(charts))


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--months", type=float, default=1.0)
    parser.add_argument("--trials", type=int, default=4000)
    parser.add_argument("--promised", type=int, default=PROMISED_TRIALS)
    parser.add_argument("--processes", type=int, default=0, help="default: the cores")
    args = parser.parse_args()
    console = Console(width=132)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("holds and attacks", total=1.0)

        def done(share: float) -> None:
            progress.update(task, completed=share)

        found = simulate(
            PLACES, args.months, args.trials, done, args.processes, args.promised
        )
    screen = Table("links", "alarm after", "ticks", "at most", "beats", "false holds")
    attacks = Table("pool", *(f"{rate:g} a tick" for rate in RATES))
    for number, place in enumerate(PLACES):
        alarm = alarm_of(place, Drawn(1))
        ticks = sum(ticks_left(place, Drawn(n)) for n in range(100)) / 100
        late = alarm.ticks_late(place.periods)
        holds, beats = found.holds[number]
        screen.add_row(
            str(place),
            f"{alarm.late(place.periods):.0f} s",
            f"{ticks:.1f}",
            str(late),
            f"{beats:,}",
            str(holds),
        )
        for kind in KINDS:
            row = (str(found.chances[number, kind, rate]) for rate in RATES)
            attacks.add_row(f"{kind}: {place}", *row)
    console.print(screen)
    console.print(attacks)
    kind, rate = PROMISED
    print(
        f"{args.months:g} months at {LOSS:.0%} loss; chance that the target leaves alone, "
        f"and its upper 95 % limit, of {args.trials} attacks each, {kind} at {rate:g} a "
        f"tick of {max(args.trials, args.promised)}.  Promised there, where the alarm is "
        f"{TICKS_MAX} ticks late at most: {PROMISED_CHANCE:g}"
    )


if __name__ == "__main__":
    main()
