# SPDX-License-Identifier: MIT
"""The filter against every path counted, a closed form, and what was put in."""

import itertools

import numpy as np
import pytest
from scipy import stats

from mesh.audit.filters import (
    BINS,
    expected,
    fit,
    forward,
    lateness_bins,
    later,
    prior,
)
from mesh.audit.trace import Floats

LATE = np.array([0.0, 0.2, 0.5])
LAWS = np.array([[0.8, 0.15, 0.05], [0.3, 0.3, 0.4]])


def path_weights(
    gaps: list[float], share: Floats, shape: int
) -> dict[tuple[int, ...], float]:
    """Probability of each path of bins together with the gaps, from the definition."""
    law = stats.gamma(shape, scale=1 / shape)
    return {
        path: float(
            np.prod(share[list(path)])
            * np.prod(
                [
                    law.pdf(gap + LATE[before] - LATE[after])
                    for gap, before, after in zip(gaps, path, path[1:], strict=False)
                ]
            )
        )
        for path in itertools.product(range(3), repeat=len(gaps) + 1)
    }


@pytest.mark.parametrize("shape", [1, 4])
def test_forward_is_the_sum_over_all_paths(shape: int) -> None:
    gaps = np.array([[0.33, 1.2, 0.15, 0.9], [2.0, 0.05, 0.4, 0.7]])
    found = forward(gaps, LATE, LAWS, shape)
    whole = np.array(
        [
            [
                np.log(sum(path_weights(list(row), share, shape).values()))
                for row in gaps
            ]
            for share in LAWS
        ]
    )
    # The same is left out under each law: the difference is exact.
    assert found[1] - found[0] == pytest.approx(whole[1] - whole[0], rel=1e-9)


@pytest.mark.parametrize("shape", [1, 4])
def test_expected_cells_are_those_of_all_paths(shape: int) -> None:
    gaps = [0.33, 1.2, 0.15, 0.9]
    weights = path_weights(gaps, LAWS[0], shape)
    counts = np.zeros(3)
    for path, weight in weights.items():
        counts += weight * np.bincount(path, minlength=3)
    counts /= sum(weights.values())
    found = expected(np.array([gaps]), LATE, LAWS[0], shape)
    assert found[0] == pytest.approx(counts, rel=1e-4)


def test_long_windows_are_cut_into_chains_and_nothing_is_lost() -> None:
    rng = np.random.default_rng(0)
    gaps = rng.gamma(4, 0.25, (3, 70))
    found = expected(gaps, LATE, LAWS[0], 4)
    parts = [
        expected(gaps[:, a:b], LATE, LAWS[0], 4)
        for a, b in ((0, 32), (32, 64), (64, 70))
    ]
    assert found == pytest.approx(np.sum(parts, axis=0), rel=1e-5)
    assert found.sum(axis=1) == pytest.approx(70 + 3, rel=1e-5)  # a chain has one more


def test_without_lateness_the_gap_alone_counts() -> None:
    """One bin: no law can be told from another."""
    gaps = np.random.default_rng(1).gamma(4, 0.25, (5, 20))
    found = forward(gaps, np.zeros(1), np.ones((2, 1)), 4)
    assert found[0] == pytest.approx(found[1])


def test_fit_finds_what_was_put_in() -> None:
    rng = np.random.default_rng(2)
    late = lateness_bins()
    assert len(late) == BINS
    assert late[-1] == 2.0
    bins = rng.choice([0, 9], (500, 33), p=[0.8, 0.2])  # a fifth half a period late
    gaps = rng.gamma(4, 0.25, (500, 32)) + np.diff(late[bins], axis=1)
    gaps = np.maximum(gaps, 1e-6)
    share = fit(gaps, late, 4, rng)
    assert share.sum() == pytest.approx(1)
    assert share[8:11].sum() == pytest.approx(0.2, abs=0.05)
    assert fit(rng.gamma(4, 0.25, (500, 32)), late, 4, rng)[8:11].sum() < 0.05


def test_later_by_an_exponential() -> None:
    late = lateness_bins()
    share = np.zeros(BINS)
    share[0] = 1.0
    found = later(late, share, 0.1)
    assert found.sum() == pytest.approx(1)
    drawn = np.random.default_rng(3).exponential(0.1, 100_000)
    near = (
        np.abs(np.log2(np.maximum(drawn, 1e-9)[:, None] / late[None, 1:])).argmin(
            axis=1
        )
        + 1
    )
    near[drawn < late[1] / 2] = 0
    assert found == pytest.approx(np.bincount(near, minlength=BINS) / 1e5, abs=0.005)
    again = later(late, np.eye(BINS)[7], 0.1)
    assert again[:7].sum() == 0


def test_piles_and_silences_one_after_the_other_leave_numbers() -> None:
    """Gaps of nothing and of many periods contradict each other; single precision fails."""
    rng, late = np.random.default_rng(0), lateness_bins()
    for _ in range(20):
        gaps, coin = rng.gamma(4, 0.25, (200, 32)), rng.random((200, 32))
        gaps = np.where(coin < 0.8 * rng.random(), 1e-6, gaps)
        gaps = np.where(coin > 0.97, rng.choice([50.0, 1e4]), gaps)
        found = expected(gaps, late, np.maximum(prior() ** 2, 1e-4), 4)
        assert found.sum(axis=1) == pytest.approx(33)
        laws = np.stack([prior(), later(late, prior(), 0.1)])
        assert np.isfinite(forward(gaps, late, laws, 4)).all()
