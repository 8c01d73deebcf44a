# SPDX-License-Identifier: MIT
"""A small n-1 attack with the real alarm and pool: `python -m benchmarks.alarm` has all."""

import pytest

from benchmarks import alarm
from benchmarks.alarm import (
    KINDS,
    WARM_TICKS,
    Drawn,
    Place,
    came,
    false_holds,
    filled,
    leaves_alone,
    manner_of,
    part,
    simulate,
    ticks_left,
    wins,
)

FAST = Place((1 / 64,) * 4, 10.0)
SLOW = Place((1.0,), 10.0)
TIMED = manner_of("timed")
TRIALS = 60


def won(place: Place, early: int) -> int:
    """Attack a place."""
    count = 0
    for seed in range(TRIALS):
        left = ticks_left(place, Drawn(seed))
        count += wins(TIMED, 20.0, [left], seed)[left, early]
    return count


def test_who_stops_all_mail_does_not_see_the_target_leave_alone() -> None:
    assert not any(won(FAST, early) for early in (0, 1))


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
    shares: list[float] = []
    found = simulate([FAST, SLOW], 1e-4, 6, shares.append, processes=2)
    counted = part([FAST, SLOW], range(6))
    for cell, chance in found.chances.items():
        assert chance == max(counted[cell, early] for early in (0, 1)) / 6
    assert found.holds[0] == false_holds(FAST, 259.2, 1)
    assert shares[-1] == 1


def test_lost_beats_hold_as_seldom_as_theory_says() -> None:
    """One that is lost five times in a row is one in three million."""
    holds, beats = false_holds(FAST, 20_000.0, 1)
    assert beats > 30_000
    assert not holds


def test_more_loss_does_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alarm, "LOSS", 0.8)
    holds, _ = false_holds(FAST, 2_000.0, 1)
    assert holds > 5
