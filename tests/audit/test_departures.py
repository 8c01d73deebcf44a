# SPDX-License-Identifier: MIT
"""Who leaves at a tick: hidden by the real pool, plain without one."""

from dataclasses import replace

import numpy as np
import pytest

from mesh.audit import departures as audited
from mesh.audit.departures import (
    ENOUGH,
    Departures,
    Posterior,
    departures,
    figure,
    posterior,
    ratio,
    ticks_of,
)
from mesh.audit.trace import Event
from mesh.core.pool import Manner, Pool
from tests.harness import FixedEntropy

SEED = 11
TICK = 10.0


def through_the_pool(kind: str, count: int, rng: np.random.Generator) -> Departures:
    """Messages at the instants of a Poisson process, five a tick, through mesh's pool."""
    came = np.cumsum(rng.exponential(TICK / 5, count))
    left = np.full(count, np.nan)
    pool = Pool(Manner(kind), FixedEntropy(kind))
    inside = 0
    now = 0.0
    while np.isnan(left).any():
        now += TICK
        while inside < count and came[inside] < now:
            pool.add(inside, "x.test", b"s", came[inside])
            inside += 1
        for leaving in pool.tick(now):
            for ref, _ in leaving:
                left[ref] = now + rng.uniform(0, 0.1)
    return Departures(came, left, TICK)


def test_the_truth_is_taken_from_the_events() -> None:
    events = [
        Event(1.0, 9, "a", "in", "exit"), Event(5.0, 9, "a", "out", "sink"),
        Event(2.0, 9, "b", "in", "exit"), Event(3.0, 9, "c", "out", "sink"),
        Event(2.5, 9, "a", "out", "elsewhere"),
    ]  # fmt: skip
    found = departures(events, "exit", "sink", TICK)
    assert (found.came.tolist(), found.left.tolist()) == ([1.0], [5.0])


def test_ticks_are_told_apart_by_their_pause() -> None:
    left = np.array([10.2, 30.0, 10.0, 20.1, 10.1])
    seen = Departures(np.zeros(5), left, TICK)
    assert ticks_of(seen).tolist() == [0, 2, 0, 1, 0]


@pytest.mark.parametrize("kind", ["timed", "binomial"])
def test_a_pool_keeps_what_it_says(kind: str) -> None:
    rng = np.random.default_rng(SEED)
    found = posterior(through_the_pool(kind, 1500, rng), rng)
    assert 0.9 < ratio(found) < 1.2
    assert found.surprise.mean() < 1.3 * found.entropy.mean()
    assert found.theory.mean() > 3


def test_without_a_pool_each_is_known_and_the_figure_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = np.random.default_rng(SEED)
    pooled = through_the_pool("timed", 1500, rng)
    bare = Departures(pooled.came, pooled.came + rng.uniform(0.01, 0.03, 1500), TICK)
    said = figure(pooled, bare, rng)
    assert said.shown
    assert said.holds
    assert said.upper <= said.value
    assert said.controls[0].value < 0.1
    assert f"fewer than the {ENOUGH:,}" in said.note
    monkeypatch.setattr(audited, "ENOUGH", said.count)
    assert "fewer" not in figure(pooled, bare, rng).note


@pytest.mark.parametrize("name", ["surprise", "not vague"])
def test_who_spreads_his_guess_too_widely_shows_nothing(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """He says less than he knows, or looks at delays through too wide a histogram."""
    rng = np.random.default_rng(SEED)
    pooled = through_the_pool("timed", 600, rng)
    bare = Departures(pooled.came, pooled.came + rng.uniform(0.01, 0.03, 600), TICK)
    if name == "surprise":
        monkeypatch.setattr(audited, "posterior", _modest)
    else:
        monkeypatch.setattr(audited, "BINS", 2)
    (control,) = (c for c in figure(pooled, bare, rng).controls if c.name == name)
    assert not control.found


def _modest(seen: Departures, rng: np.random.Generator) -> Posterior:
    """Twice as unsure as he is."""
    found = posterior(seen, rng)
    return replace(found, entropy=2 * found.entropy)
