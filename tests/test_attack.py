# SPDX-License-Identifier: MIT
"""A small n-1 attack with the real alarm and pool: `python -m benchmarks.alarm` has all."""

import pytest

from benchmarks import alarm
from benchmarks.alarm import Place, attack, false_holds
from mesh.core.pool import Manner

FAST = Place((1 / 64,) * 4, 10.0)
SLOW = Place((1.0,), 10.0)
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
    """One that is lost five times in a row is one in three million."""
    holds, beats = false_holds(FAST, 20_000.0, 1)
    assert beats > 30_000
    assert not holds


def test_more_loss_does_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alarm, "LOSS", 0.8)
    holds, _ = false_holds(FAST, 2_000.0, 1)
    assert holds > 5
