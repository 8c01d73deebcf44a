# SPDX-License-Identifier: MIT
"""Windows are whole, and each number is what its name says."""

from itertools import pairwise

import numpy as np
import pytest

from mesh.audit.features import (
    cut,
    edges,
    features,
    known,
    phases,
    shares,
)
from mesh.audit.planting import late_acks, moved, thrown
from mesh.audit.simulated import instants, rows_at, simulated
from mesh.audit.trace import NO_BLOCK, Trace, by_time
from mesh.core.clock import Clock


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_windows_take_whole_runs_of_one_block() -> None:
    trace = simulated(Clock.RENEWAL, 64.0, 100, rng())
    block = np.repeat([0, NO_BLOCK, 2], [90, 20, 90])
    windows = cut(trace.with_labels(block, block == 2), 20)
    for side in (0, 1):
        rows = trace.rows[windows.index[side]]
        assert (rows["side"] == side).all()
        assert (np.diff(rows["at"], axis=1) > 0).all()
        assert np.unique(windows.index[side]).size == windows.index[side].size
    assert windows.block.tolist() == sorted(windows.block.tolist())
    counts = [
        min(((block == b) & (trace.rows["side"] == s)).sum() // 20 for s in (0, 1))
        for b in (0, 2)
    ]
    assert [(windows.block == b).sum() for b in (0, 2)] == counts
    assert (windows.label == (windows.block == 2)).all()


def test_a_window_of_one_cell_has_no_gap() -> None:
    with pytest.raises(ValueError, match="two cells"):
        cut(simulated(Clock.RENEWAL, 64.0, 10, rng()), 1)


def test_no_window_no_row() -> None:
    windows = cut(simulated(Clock.RENEWAL, 64.0, 10, rng()), 20)
    assert len(windows) == 0


def test_the_first_gap_is_left_out_and_an_unseen_one_is_the_period() -> None:
    trace = simulated(Clock.RENEWAL, 64.0, 10, rng())
    rows = trace.rows.copy()
    rows["gap"][np.flatnonzero(rows["side"] == 0)[4]] = np.nan
    windows = cut(trace.with_rows(rows), 10)
    gaps = windows.gaps(0)[0]
    seen = trace.of(0)["gap"][1:]
    assert gaps[3] == 1 / 64
    assert np.delete(gaps, 3) == pytest.approx(np.delete(seen, 3))


@pytest.mark.parametrize("faster", [0.0, 300e-6])
def test_the_grid_is_found_and_a_late_window_shows(faster: float) -> None:
    """Also where the capture's clock runs apart from the node's by 300 in a million."""
    draws = rng()
    sides = [
        rows_at(side, instants(Clock.CONSTANT, 64.0, 6_000, draws), draws)
        for side in (0, 1)
    ]
    rows = by_time(np.concatenate(sides))
    rows["at"] = 1.7e9 + rows["at"] * (1 + faster)
    trace = thrown(Trace(rows, 64.0, "constant", ""), 50, draws)
    mine = trace.rows["busy"] & (trace.rows["side"] == 0)
    windows = cut(moved(trace, np.where(mine, 1e-3, 0.0), draws), 50)
    away = phases(windows, 0).mean(axis=1) / 64
    apart = away[windows.label].mean() - away[~windows.label].mean()
    assert apart == pytest.approx(1e-3, rel=0.05)
    assert away[windows.label].min() > away[~windows.label].max()
    # What is left of the drift after the fit is small beside a period.
    assert np.abs(phases(windows, 1)).max() < 0.02


def test_shares_are_those_of_a_histogram() -> None:
    values = rng().normal(size=(5, 200))
    inner = edges(values)
    found = shares(values, inner)
    for row, share in zip(values, found, strict=True):
        whole = np.concatenate([[-np.inf], inner, [np.inf]])
        counted = [((row >= a) & (row < b)).mean() for a, b in pairwise(whole)]
        assert share == pytest.approx(counted)
    assert shares(np.zeros((2, 3)), edges(np.zeros((2, 3)))).sum(axis=1).tolist() == [
        1,
        1,
    ]


def test_unknown_values_are_the_median() -> None:
    assert known(np.array([1.0, np.nan, 3.0])).tolist() == [1, 2, 3]
    assert known(np.full(2, np.nan)).tolist() == [0, 0]


def test_features_are_numbers_and_know_no_label() -> None:
    trace = thrown(simulated(Clock.RENEWAL, 64.0, 2_000, rng()), 40, rng())
    matrix = features(cut(trace, 40))
    assert np.isfinite(matrix).all()
    turned = trace.with_labels(
        trace.rows["block"].astype(np.int64),
        ~trace.rows["busy"] & (trace.rows["block"] != NO_BLOCK),
    )
    assert (features(cut(turned, 40)) == matrix).all()
    two = features(cut(trace, 2))
    assert np.isfinite(two).all()


@pytest.mark.parametrize(
    ("field", "value"),
    [("acks", 9), ("segments", 4), ("first", 88), ("last", 77), ("again", 1), ("window", 5)],
)  # fmt: skip
def test_each_field_of_a_row_shows(field: str, value: int) -> None:
    trace = thrown(simulated(Clock.RENEWAL, 64.0, 400, rng()), 20, rng())
    before = features(cut(trace, 20))
    rows = trace.rows.copy()
    some = np.flatnonzero(rows["busy"] & (rows["side"] == 1))
    rows[field][some] = value
    after = features(cut(trace.with_rows(rows), 20))
    label = cut(trace, 20).label
    assert (before != after).any(axis=1)[label].all()
    assert not (before != after).any(axis=1)[~label].any()


def test_ack_delays_show_and_their_absence() -> None:
    trace = thrown(simulated(Clock.RENEWAL, 64.0, 400, rng()), 20, rng())
    label, before = cut(trace, 20).label, features(cut(trace, 20))
    late = features(cut(late_acks(1e-3, trace, rng()), 20))
    assert ((late - before).max(axis=1)[label] > 1e-4).all()
    rows = trace.rows.copy()
    rows["ack_delay"][rows["busy"]] = np.nan
    none = features(cut(trace.with_rows(rows), 20))
    assert ((none == 1) & (before == 0)).any(axis=1)[label].all()
