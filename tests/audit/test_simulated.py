# SPDX-License-Identifier: MIT
"""The simulated wire keeps the clock's law, and a late cell is as late as was asked."""

import numpy as np
import pytest
from scipy import stats

from mesh.audit.simulated import (
    BURST_GAP,
    Lateness,
    burst,
    instants,
    noisy,
    on_time,
    simulate,
    simulated,
)
from mesh.audit.trace import Floats
from mesh.core.cell import CELL_LEN
from mesh.core.clock import Clock

COUNT = 4_000


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize(
    ("clock", "law"),
    [
        (Clock.RENEWAL, stats.gamma(4, scale=0.25)),
        (Clock.POISSON, stats.expon()),
    ],
)
def test_gaps_have_the_clocks_law(clock: Clock, law: stats.rv_continuous) -> None:
    rows = simulate(clock, 64.0, COUNT, rng())
    for side in (0, 1):
        gaps = rows["gap"][rows["side"] == side]
        assert np.isnan(gaps[0])
        assert stats.kstest(gaps[1:] * 64, law.cdf).pvalue > 0.001


def test_grids_keep_their_period() -> None:
    constant = instants(Clock.CONSTANT, 8.0, 100, rng())
    assert np.diff(constant) == pytest.approx(0.125)
    greedy = instants(Clock.GREEDY, 8.0, 100, rng())
    assert np.diff(greedy) == pytest.approx(0.125)
    slotted = instants(Clock.SLOTTED, 8.0, COUNT, rng())
    turns = np.exp(2j * np.pi * slotted * 8)
    # E exp(i x) of the raised cosine's density is -1/2.
    assert abs(turns.mean()) == pytest.approx(0.5, abs=0.05)


def test_one_seed_one_trace_and_another_one_another() -> None:
    one, same, other = (simulate(Clock.RENEWAL, 1.0, 50, rng(n)) for n in (1, 1, 2))
    assert one.tobytes() == same.tobytes()
    assert one.tobytes() != other.tobytes()


def test_lateness_is_the_first_sides_and_never_overtakes() -> None:
    late: Lateness = lambda count: np.where(np.arange(count) == 10, 1.0, 0.0)  # noqa: E731
    plain = simulate(Clock.RENEWAL, 64.0, 200, rng(), on_time)
    held = simulate(Clock.RENEWAL, 64.0, 200, rng(), late)
    mine = [rows[rows["side"] == 0]["at"] for rows in (plain, held)]
    assert mine[1][10] == pytest.approx(mine[0][10] + 1.0)
    assert (np.diff(mine[1]) >= 0).all()
    assert (mine[1][11:30] == mine[1][10]).all()  # piled up behind it
    assert (mine[1][150:] == mine[0][150:]).all()  # and no mark on those to come
    theirs = [rows[rows["side"] == 1]["at"] for rows in (plain, held)]
    assert (theirs[0] == theirs[1]).all()


def test_a_cell_is_three_segments() -> None:
    row = simulate(Clock.RENEWAL, 64.0, 5, rng())[0]
    whole = row["first"] * (row["segments"] - 1) + row["last"]
    assert whole == CELL_LEN


def test_a_quiet_hosts_lateness() -> None:
    late: Floats = noisy(rng(), 1e-3)(5_000)
    assert np.median(late) == pytest.approx(1e-3, rel=0.05)
    assert late.min() > 0


def test_a_burst_adds_cells_where_there_is_mail() -> None:
    trace = simulated(Clock.GREEDY, 64.0, 100, rng())
    busy = trace.rows["at"] > 0.8
    rows = burst(trace.rows, busy, 1.0, rng())
    more = (busy & (trace.rows["side"] == 0)).sum()
    assert len(rows) == 200 + more
    close = rows["gap"] < 2 * BURST_GAP
    assert close.sum() == more
    assert (rows["side"][close] == 0).all()
