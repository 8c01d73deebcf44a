# SPDX-License-Identifier: MIT
"""Ticks lie on a grid that nobody can move."""

from hypothesis import given
from hypothesis import strategies as st

from mesh.core.pool import Ticks
from tests.harness import FixedEntropy

periods = st.floats(0.001, 3600)
times = st.floats(0, 1e9)


@given(periods, times, times)
def test_every_tick_lies_on_the_grid(period: float, one: float, other: float) -> None:
    ticks = Ticks(period, FixedEntropy())
    first, second = sorted((ticks.after(one), ticks.after(other)))
    steps = (second - first) / period
    assert abs(steps - round(steps)) < 1e-4 * max(1.0, steps)
    assert one < ticks.after(one) <= one + period * 1.001 + 1e-6


@given(periods, times)
def test_ticks_follow_each_other(period: float, now: float) -> None:
    ticks = Ticks(period, FixedEntropy())
    for _ in range(20):
        tick = ticks.after(now)
        assert 0 < tick - now <= period * 1.001 + 1e-6
        now = tick


def test_a_tick_is_not_its_own_successor() -> None:
    ticks = Ticks(0.1, FixedEntropy())
    now = 0.0
    for _ in range(10_000):
        assert ticks.after(now) > now
        now = ticks.after(now)
    assert 998 < now < 1002


def test_nodes_do_not_tick_together() -> None:
    first = {Ticks(10, FixedEntropy(str(seed))).after(0) for seed in range(50)}
    assert len(first) == 50
    assert all(0 < tick <= 10 for tick in first)
