# SPDX-License-Identifier: MIT
"""The law of departure: its classes, its draws, and that lateness never enters it."""

import math
import statistics

import pytest

from mesh.core.clock import Clock, Draws, Renewal, class_of, period_of, rate_of
from tests.harness import FixedEntropy


def test_classes_are_powers_of_two() -> None:
    for klass in range(16):
        assert class_of(rate_of(klass)) == klass
        assert period_of(klass) * rate_of(klass) == 1
    assert class_of(0.125) == 0
    assert class_of(1) == 3
    assert class_of(4096) == 15
    for wrong in (0, 0.0625, 3, 8192, -1, math.inf):
        with pytest.raises(ValueError, match="power of two"):
            class_of(wrong)


def test_stricter_is_smaller() -> None:
    assert max(Clock) is Clock.GREEDY
    assert min(Clock) is Clock.RENEWAL


def test_draws_are_uniform_and_never_zero() -> None:
    draws = Draws(FixedEntropy().key())
    values = [draws.unit() for _ in range(20_000)]
    assert min(values) > 0
    assert max(values) <= 1
    assert abs(statistics.mean(values) - 0.5) < 0.01
    assert abs(statistics.pvariance(values) - 1 / 12) < 0.002
    assert len(set(values)) == len(values)


def test_renewal_gaps_are_erlang_4() -> None:
    clock = Renewal(3, FixedEntropy().key(), 100.0)
    assert 100.0 < clock.due <= 101.0
    last, gaps = clock.due, []
    for _ in range(20_000):
        due = clock.advance()
        gaps.append(due - last)
        last = due
    assert min(gaps) > 0
    assert abs(statistics.mean(gaps) - 1.0) < 0.02
    assert abs(statistics.pstdev(gaps) - 0.5) < 0.02
    below = sum(gap < 2.51 for gap in gaps) / len(gaps)
    assert abs(below - 0.99) < 0.005  # Erlang-4 of mean 1: 99 in 100 below 2.51


def test_instants_do_not_depend_on_when_they_are_asked_for() -> None:
    one = Renewal(9, FixedEntropy().key(), 5.0)
    two = Renewal(9, FixedEntropy().key(), 5.0)
    assert [one.advance() for _ in range(100)] == [two.advance() for _ in range(100)]
