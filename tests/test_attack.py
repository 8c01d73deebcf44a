# SPDX-License-Identifier: MIT
"""A small n-1 attack with the real alarm and pool: `python -m benchmarks.alarm` has all."""

import math

import pytest

from benchmarks import attack
from benchmarks.alarm import (
    CURVES,
    KINDS,
    PLACES,
    PROMISED,
    PROMISED_CHANCE,
    PROMISED_TRIALS,
    Chance,
    Simulated,
    figures_of,
    keeps_the_promise,
    part,
    simulate,
)
from benchmarks.attack import (
    WARM_TICKS,
    Drawn,
    Place,
    alarm_of,
    came,
    false_holds,
    filled,
    leaves_alone,
    manner_of,
    ticks_left,
    wins,
)
from mesh.core.alarm import TICKS_MAX, long_enough

FAST = Place((1 / 64,) * 4, 10.0)
SLOW = Place((1.0,), 10.0)
ADVISED = Place((1.0,) * 4, float(long_enough([1.0])))
TIMED = manner_of("timed")
TRIALS = 60


def won(place: Place, early: int) -> int:
    """Attack a place."""
    count = 0
    for seed in range(TRIALS):
        left = ticks_left(place, Drawn(seed))
        count += wins(TIMED, 20.0, [left], seed)[left, early]
    return count


@pytest.mark.parametrize("place", [FAST, ADVISED], ids=str)
def test_who_stops_all_mail_does_not_see_the_target_leave_alone(place: Place) -> None:
    assert not any(won(place, early) for early in (0, 1))


@pytest.mark.parametrize("place", PLACES, ids=str)
def test_the_alarm_is_never_later_than_it_says(place: Place) -> None:
    late = alarm_of(place, Drawn(1)).ticks_late(place.periods)
    lefts = [ticks_left(place, Drawn(seed)) for seed in range(30)]
    assert late - 2 <= max(lefts) <= late


def test_an_alarm_that_comes_late_would_let_him_win() -> None:
    """Or the attack above proves nothing."""
    assert won(SLOW, 1) > TRIALS / 3


@pytest.mark.parametrize("kind", KINDS)
def test_a_pool_that_goes_on_from_where_it_was_is_as_one_of_its_own(kind: str) -> None:
    """Many ends of one beginning are what each trial by itself would have been."""
    for seed in range(8):
        found = wins(manner_of(kind), 5.0, range(9), seed)
        assert set(found) == {(left, early) for left in range(1, 9) for early in (0, 1)}
        for (left, early), is_won in found.items():
            pool, at = filled(manner_of(kind), 5.0, Drawn(seed)), came(left, early)
            for now in range(WARM_TICKS, WARM_TICKS + at):
                assert list(pool.tick(now + 1.0)) is not None
            alone = leaves_alone(pool, float(WARM_TICKS + at), left - at)
            assert alone == is_won


def test_what_comes_of_it_does_not_depend_on_the_processes() -> None:
    """And what is promised has trials of its own."""
    places, shares = [FAST, SLOW], list[float]()
    found = simulate(places, 1e-4, 6, shares.append, processes=2, promised=9)
    counted = part(places, range(6)) + part(places, range(6, 9), [PROMISED])
    for cell, chance in found.chances.items():
        trials = 9 if cell[1:] == PROMISED else 6
        assert chance == Chance(max(counted[cell, early] for early in (0, 1)), trials)
    assert len(found.chances) == 2 * len(CURVES)
    assert found.holds[0] == false_holds(FAST, 259.2, 1)
    assert shares[-1] == 1


def test_the_limit_is_the_exact_one() -> None:
    """None of n: 1 - 0.05 ** (1 / n), about 3 / n; and the trials are enough to show it."""
    assert math.isclose(Chance(0, 4000).upper, 1 - 0.05 ** (1 / 4000))
    assert Chance(7, 7).upper == 1.0
    assert Chance(4, PROMISED_TRIALS).upper < PROMISED_CHANCE
    assert str(Chance(1, 1000)) == "0.0010 <0.0047"


def test_each_place_is_held_to_what_mesh_status_says_nothing_against() -> None:
    bound = {}
    for place in PLACES:
        found = Simulated({7: (2, 9)}, {(7, *PROMISED): Chance(0, 1000)})
        holds, chance = figures_of(7, place, found, 1.0, is_bound=True)
        assert (holds.value, holds.bound, holds.verdict) == (2, 1.0, "missed")
        bound[str(place)] = chance.bound
        assert (chance.bound is not None) == keeps_the_promise(place)
        for figure in figures_of(7, place, found, 1.0, is_bound=False):
            assert figure.verdict == "open"
    promised = [place for place, each in bound.items() if each == 1e-3]
    assert promised == [
        "4 of 1/s; tick 65 s",
        "4 of 1/s; tick 120 s",
        "4 of 8/s; tick 30 s",
        "4 of 64/s; tick 10 s",
        "3 of 64/s, 1 of 0.125/s; tick 10 s",
    ]
    assert not keeps_the_promise(Place(ADVISED.periods, ADVISED.tick - 1))


def test_a_chance_above_the_promise_is_missed() -> None:
    found = Simulated({0: (0, 9)}, {(0, *PROMISED): Chance(20, PROMISED_TRIALS)})
    _, chance = figures_of(0, FAST, found, 1.0, is_bound=True)
    assert chance.verdict == "missed"


def test_one_tick_more_would_break_it() -> None:
    """TICKS_MAX is where it is for a reason: 4 ticks leave him 1 attack of 20."""
    beyond = TICKS_MAX + 1
    found = [wins(TIMED, PROMISED[1], [TICKS_MAX, beyond], n) for n in range(200)]
    assert sum(one[beyond, 1] for one in found) > 3
    assert not any(one[TICKS_MAX, early] for one in found for early in (0, 1))


def test_lost_beats_hold_as_seldom_as_theory_says() -> None:
    """One that is lost five times in a row is one in three million."""
    holds, beats = false_holds(FAST, 20_000.0, 1)
    assert beats > 30_000
    assert not holds


def test_more_loss_does_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attack, "LOSS", 0.8)
    holds, _ = false_holds(FAST, 2_000.0, 1)
    assert holds > 5
