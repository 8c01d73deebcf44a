# SPDX-License-Identifier: MIT
"""A small n-1 attack with the real alarm and pool: `python -m benchmarks.alarm` has all."""

import math

from benchmarks.alarm import LOSS, Drawn, Place, alarm_of, attack, false_holds
from mesh.core.alarm import LOST_MAX
from mesh.core.pool import Manner

FAST = Place(4, 1 / 64, 10.0)
SLOW = Place(1, 1.0, 10.0)
TIMED = Manner("timed", max_delay=1e9)
TRIALS = 60


def test_who_stops_all_mail_does_not_see_the_target_leave_alone() -> None:
    wins = [
        attack(FAST, TIMED, 20.0, early, n) for early in (0, 1) for n in range(TRIALS)
    ]
    assert not any(wins)


def test_an_alarm_that_comes_late_would_let_him_win() -> None:
    """Or the attack above proves nothing."""
    wins = [attack(SLOW, TIMED, 20.0, 1, n) for n in range(TRIALS)]
    assert sum(wins) > TRIALS / 3


def test_lost_beats_hold_as_seldom_as_theory_says() -> None:
    holds, beats = false_holds(FAST, 40_000.0, 1)
    assert beats == 40_000 / alarm_of(FAST, Drawn(1)).interval
    assert holds <= 2
    expected = beats * (1 - LOSS) * LOSS**LOST_MAX
    assert math.exp(-expected) > 0.99  # so two are more than chance would give
