# SPDX-License-Identifier: MIT
"""Port 25: which of the messages that came to the exit is the one that leaves now.

The attacker is given more than a snooper has: the instant at which each message came.
From half of the messages, whose end he is told, he learns how long one stays: a
histogram of delays, its bins by their logarithm.  Then of each that leaves he knows how likely
each of all that came in reach is it, the posterior; its entropy says among how many it
is hidden.

    theory      what the pool's own entropy (mesh.core.pool.Crowd) is at that tick, fed
                with what was inside then
    value       mean posterior entropy over mean theory; `upper` is its lower limit
    surprise    the mean of -log2 of what he gave the right one, over the mean entropy: 1
                where he knows as much as he says, above where he errs

Controls: the same attacker where there is no pool, and messages leave as they come; and
two that say he does not spread his guess wider than he has to, which would be taken for
the pool's doing: the right one does not surprise him less than he said it would, and his
entropy is not far above the theory, which is what is left to whoever knows the pool.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from mesh.audit.figures import Control, Figure
from mesh.audit.statistics import DRAWS, SURE
from mesh.audit.trace import Event, Floats, Ints
from mesh.core.pool import Crowd

BOUND: Final = 0.9
BROKEN: Final = 0.1
ENOUGH: Final = 2_000
"""Messages for which BOUND is promised (bounds.py)."""
MODEST: Final = 0.9
"""Surprise over entropy, at least: below it he knows more than he says."""
VAGUE: Final = 1.25
"""Entropy over theory, at most: above it he knows less than he could."""
BINS: Final = 40
"""Of the histogram of delays."""
LEAST: Final = 2e-3
"""Of a tick: the first bin's end."""
REACH: Final = 64
"""Ticks that a message stays at most: what the pool's own entropy looks back."""
SOURCE: Final = b"all"
BLOCK: Final = 20
"""Departures, one after the other, that may have something in common."""


@dataclass(frozen=True)
class Departures:
    """What came to the exit, and when it left; in the order of coming."""

    came: Floats
    left: Floats
    tick: float
    """Seconds between two ticks."""


@dataclass(frozen=True)
class Posterior:
    """Of each departure that was looked at, bits."""

    entropy: Floats
    surprise: Floats
    theory: Floats


def departures(
    events: Sequence[Event], place: str, sink: str, tick: float
) -> Departures:
    """Take out of the truth what a place handed to its node and a sink got."""
    came = {e.ident: e.at for e in events if e.place == place and e.what == "in"}
    left = {e.ident: e.at for e in events if e.place == sink and e.what == "out"}
    both = sorted((came[ident], left[ident]) for ident in came.keys() & left.keys())
    first, last = np.array(both, float).reshape(-1, 2).T
    return Departures(first, last, tick)


def posterior(seen: Departures, rng: np.random.Generator) -> Posterior:
    """Say what the attacker makes of the half of the messages that he is not told."""
    told = rng.random(len(seen.came)) < 0.5
    edges = np.geomspace(LEAST * seen.tick, REACH * seen.tick, BINS)
    stays = np.searchsorted(edges, (seen.left - seen.came)[told]).clip(0, BINS - 1)
    width = np.diff(edges, prepend=0.0)
    # One message more, anywhere: what was never seen is not impossible.
    dense = np.bincount(stays, minlength=BINS) / width + 1 / edges[-1]
    theory = _theory(seen)
    entropy, surprise, expected = [], [], []
    for number in np.flatnonzero(~told):
        waits = seen.left[number] - seen.came
        near = np.flatnonzero((waits >= 0) & (waits < REACH * seen.tick))
        if number not in near:
            continue
        weight = dense[np.searchsorted(edges, waits[near])]
        share = weight / weight.sum()
        entropy.append(float(-(share * np.log2(share)).sum()))
        surprise.append(float(-np.log2(share[near == number][0])))
        expected.append(theory[number])
    return Posterior(np.array(entropy), np.array(surprise), np.array(expected))


def phase_of(seen: Departures) -> float:
    """Give the grid's phase: ticks come at the end of the time when nothing leaves."""
    within = np.sort(seen.left % seen.tick)
    quiet = np.diff(within, prepend=within[-1] - seen.tick)
    return float(within[int(quiet.argmax())])


def ticks_of(seen: Departures) -> Ints:
    """Number the tick on which each message left."""
    # A rounding error before its tick is on it.
    number = np.floor((seen.left - phase_of(seen)) / seen.tick + 1e-9).astype(np.int64)
    numbered: Ints = number - number.min()
    return numbered


def _theory(seen: Departures) -> Floats:
    """Give the pool's own entropy at each message's tick."""
    crowd, bits = Crowd(), np.zeros(len(seen.came))
    number = ticks_of(seen)
    begin = float(seen.left[number == 0].min())
    came = 0
    for tick in range(int(number.max()) + 1):
        leaving = np.flatnonzero(number == tick)
        now = float(seen.left[leaving].min(initial=begin + tick * seen.tick))
        while came < len(seen.came) and seen.came[came] <= now:
            crowd.came(SOURCE)
            came += 1
        bits[leaving] = crowd.nominal()
        crowd.ticked()
        for _ in leaving:
            crowd.went(SOURCE)
    return bits


def ratio(found: Posterior) -> float:
    """Entropy over theory."""
    return float(found.entropy.mean() / found.theory.mean())


def figure(
    seen: Departures, control: Departures, rng: np.random.Generator, world: str = ""
) -> Figure:
    """Say how much of the pool's entropy is left to an attacker; `control` has no pool.

    The control's entropy is set against the same theory.
    """
    found, broken = posterior(seen, rng), posterior(control, rng)
    value = ratio(found)
    drawn = []
    blocks = np.arange(len(found.entropy)) // BLOCK
    for _ in range(DRAWS):
        some = rng.integers(0, blocks[-1] + 1, blocks[-1] + 1)
        index = (some[:, None] * BLOCK + np.arange(BLOCK)).ravel()
        index = index[index < len(blocks)]
        drawn.append(found.entropy[index].mean() / found.theory[index].mean())
    other = float(broken.entropy.mean() / found.theory.mean())
    surprise = float(found.surprise.mean() / found.entropy.mean())
    count = len(found.entropy)
    few = f"; fewer than the {ENOUGH:,} that are promised" if count < ENOUGH else ""
    controls = (
        Control("no pool", other, f"<= {BROKEN}", other <= BROKEN),
        Control("surprise", surprise, f">= {MODEST}", surprise >= MODEST),
        Control("not vague", value, f"<= {VAGUE}", value <= VAGUE),
    )
    return Figure(
        "port 25, entropy over theory", "posterior", value,
        float(np.quantile(drawn, 1 - SURE)), BOUND, "share", count, "", controls,
        note=f"{found.entropy.mean():.2f} bits of {found.theory.mean():.2f}; "
        f"surprise {surprise:.2f}{few}",
        at_least=True, world=world,
    )  # fmt: skip
