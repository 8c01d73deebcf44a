# SPDX-License-Identifier: MIT
"""Two wires and a place between them, simulated: with cover and without."""

import numpy as np

from mesh.audit.matching import Seen
from mesh.audit.simulated import noisy, rows_at, simulated
from mesh.audit.trace import Floats, Ints, Trace, by_time
from mesh.core.clock import Clock

RATE = 64.0
APART = 0.8
"""Seconds between messages, on average."""


def messages(seconds: float, rng: np.random.Generator) -> Floats:
    """Instants at which messages have come to the place."""
    at: Floats = np.sort(rng.uniform(1, seconds - 1, round(seconds / APART)))
    return at


def covered(seconds: float, rng: np.random.Generator) -> Seen:
    """Cells by the clock, whatever passes."""
    count = round(RATE * seconds * 1.05)
    first, second = (
        simulated(Clock.RENEWAL, RATE, count, rng, noisy(rng)) for _ in range(2)
    )
    at = messages(seconds, rng)
    return Seen(first, second, at, at + rng.uniform(0.001, 0.003, len(at)))


def bare(
    seconds: float,
    rng: np.random.Generator,
    at: Floats | None = None,
    sizes: Ints | None = None,
) -> Seen:
    """No cover: a write of each message's size, and nothing else."""
    at = messages(seconds, rng) if at is None else at
    sizes = rng.integers(1500, 30_000, len(at)) if sizes is None else sizes
    left = at + rng.uniform(0.001, 0.003, len(at))
    wires = [_writes(when, sizes, seconds, rng) for when in (at - 0.004, left + 0.002)]
    return Seen(wires[0], wires[1], at, left)


def _writes(at: Floats, sizes: Ints, seconds: float, rng: np.random.Generator) -> Trace:
    silence = np.arange(1 / RATE, seconds, 1 / RATE)
    sides = []
    for side in (0, 1):
        rows = rows_at(side, silence, rng)
        for field in ("segments", "first", "last"):
            rows[field] = 0
        sides.append(rows)
    mail = rows_at(0, at, rng)
    mail["segments"] = -(-sizes // 1448)
    mail["last"] = sizes % 1448
    both = by_time(np.concatenate([*sides, mail]))
    return Trace(both, RATE, "", "no cover")
