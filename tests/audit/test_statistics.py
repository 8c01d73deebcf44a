# SPDX-License-Identifier: MIT
"""Each statistic against a closed form, or against counting."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from mesh.audit.statistics import (
    auc,
    bootstrap,
    bootstrap_auc,
    information,
    measured,
    permuted,
    plug_in,
    ranks,
    roc,
    share_upper,
    spearman,
    tpr_at,
    two_sided,
)

SCORES = st.lists(
    st.tuples(st.integers(0, 6), st.booleans()), min_size=2, max_size=30
).filter(lambda pairs: len({busy for _, busy in pairs}) == 2)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@given(SCORES)
def test_auc_is_the_share_of_pairs_that_are_in_order(
    pairs: list[tuple[int, bool]],
) -> None:
    score = np.array([float(value) for value, _ in pairs])
    label = np.array([busy for _, busy in pairs])
    wins = [
        1.0 if ours > theirs else 0.5 if ours == theirs else 0.0
        for (ours, busy), (theirs, other) in itertools.product(pairs, pairs)
        if busy and not other
    ]
    assert auc(score, label) == pytest.approx(sum(wins) / len(wins))
    area = np.trapezoid(*np.array(roc(score, label))[:, ::-1].T)
    assert area == pytest.approx(auc(score, label))


def test_auc_of_two_normals() -> None:
    draws, apart = rng(), 0.5
    label = np.arange(40_000) % 2 == 0
    score = draws.normal(0, 1, 40_000) + apart * label
    assert auc(score, label) == pytest.approx(stats.norm.cdf(apart / 2**0.5), abs=0.01)


def test_auc_needs_both_classes_and_is_a_find_below_one_half() -> None:
    assert math.isnan(auc(np.arange(3.0), np.ones(3, bool)))
    assert two_sided(0.4) == pytest.approx(0.6)
    with pytest.raises(ValueError, match="both kinds"):
        measured(np.arange(3.0), np.ones(3, bool), np.arange(3), rng())


def test_ranks_share_a_tie() -> None:
    assert ranks([3, 1, 3, 2]).tolist() == [3.5, 1, 3.5, 2]


def test_true_positives_at_a_rate_of_false_ones() -> None:
    score = np.array([9.0, 8, 7, 6, 5, 4])
    label = np.array([True, True, False, True, False, False])
    assert tpr_at(score, label, 0.0) == pytest.approx(2 / 3)
    assert tpr_at(score, label, 0.34) == 1.0
    assert tpr_at(np.zeros(6), label, 0.5) == 0.0  # a tie of all is all or nothing
    assert roc(score, label)[0] == (0, 0)
    assert roc(score, label)[-1] == (1, 1)


def test_spearman_is_pearsons_of_ranks() -> None:
    draws = rng()
    left = draws.integers(0, 9, 200).astype(float)
    right = left + draws.normal(0, 3, 200).round()
    assert spearman(left, right) == pytest.approx(stats.spearmanr(left, right)[0])
    assert spearman(left, -left) == pytest.approx(-1)
    assert math.isnan(spearman(left, np.zeros(200)))


def test_the_upper_limit_of_a_share() -> None:
    # None of n: the limit is 1 - 0.05 ** (1 / n), the rule of three.
    assert share_upper(0, 100) == pytest.approx(1 - 0.05 ** (1 / 100))
    assert share_upper(100, 100) == 1
    upper = share_upper(7, 50)
    assert stats.binom.cdf(7, 50, upper) == pytest.approx(0.05)


# The bootstrap


def test_the_bootstrap_has_mann_and_whitneys_error() -> None:
    draws, count = rng(), 600
    label = np.arange(count) % 2 == 0
    score = draws.normal(0, 1, count)
    error = math.sqrt((count + 1) / (12 * (count // 2) ** 2))
    found = bootstrap_auc(score, label, np.arange(count), draws)
    assert found.std() == pytest.approx(error, rel=0.15)
    assert found.mean() == pytest.approx(auc(score, label), abs=error / 5)


def test_the_fast_bootstrap_is_the_plain_one() -> None:
    score = rng(3).integers(0, 5, 40).astype(float)
    label = np.arange(40) % 4 < 2
    block = np.arange(40) // 2
    fast = bootstrap_auc(score, label, block, rng(4), 150)
    plain = bootstrap(lambda some: auc(score[some], label[some]), block, rng(4), 150)
    assert np.allclose(fast, plain)


def test_windows_of_one_block_count_as_what_they_are() -> None:
    """Eight copies of each window say no more than one."""
    draws = rng(1)
    score, label = draws.normal(0, 1, 300), np.arange(300) % 2 == 0
    once = measured(score, label, np.arange(300), rng(2))
    block = np.repeat(np.arange(300), 8)
    eight = measured(np.repeat(score, 8), np.repeat(label, 8), block, rng(2))
    assert eight.error == pytest.approx(once.error, rel=0.1)
    apart = rng(3).permutation(2400)
    alone = measured(np.repeat(score, 8), np.repeat(label, 8), apart, rng(2))
    assert alone.error < 0.6 * once.error


def test_blocks_that_lean_on_their_neighbours_make_it_less_sure() -> None:
    draws, count = rng(5), 512
    slow = np.repeat(draws.normal(0, 1, count // 8), 8)
    label = np.repeat(draws.permutation(count // 8) % 2 == 0, 8)
    near = measured(slow, label, np.arange(count), rng(6))
    parted = measured(slow, label, draws.permutation(count), rng(6))
    assert near.error > 1.5 * parted.error


def test_the_limit_is_passed_by_one_in_twenty() -> None:
    draws, count, apart = rng(7), 200, 0.3
    label = np.arange(count) % 2 == 0
    truth = stats.norm.cdf(apart / 2**0.5)
    below = 0
    for _ in range(100):
        score = draws.normal(0, 1, count) + apart * label
        below += measured(score, label, np.arange(count), draws, 200).upper < truth
    assert below <= 14  # 5 expected, and four deviations


def test_a_find_and_a_null() -> None:
    draws = rng(8)
    label = np.arange(400) % 2 == 0
    blind = measured(draws.normal(0, 1, 400), label, np.arange(400), draws)
    assert blind.null
    assert not blind.found
    assert blind.count == 200
    sees = measured(draws.normal(0, 1, 400) + label, label, np.arange(400), draws)
    assert sees.found
    assert not sees.null
    turned = measured(-label.astype(float), label, np.arange(400), draws)
    assert turned.upper == turned.value == 1
    assert not turned.found  # by chance or by a leak: but not by what it learned


# Information


def test_information_of_a_channel_that_flips() -> None:
    table = np.array([[90.0, 10], [10, 90]])
    assert plug_in(table) == pytest.approx(1 + 0.9 * np.log2(0.9) + 0.1 * np.log2(0.1))
    assert plug_in(np.array([[5.0, 5], [5, 5]])) == pytest.approx(0)
    assert plug_in(np.array([[8.0, 0], [0, 8]])) == pytest.approx(1)


def test_information_of_two_normals() -> None:
    """Four parts of a weak score keep most of d^2 / (8 ln 2), and no more than that."""
    draws, apart, count = rng(9), 0.6, 20_000
    label = np.arange(count) % 2 == 0
    score = draws.normal(0, 1, count) + apart * label
    found = information(score, label, np.arange(count), draws)
    whole = apart**2 / (8 * math.log(2))
    assert 0.7 * whole < found.bits < 1.05 * whole
    assert found.bits < found.upper < 1.3 * found.bits
    assert found.null < 0.01 * found.bits


def test_without_information_the_estimate_is_zero_on_average() -> None:
    draws, count = rng(10), 200
    label = np.arange(count) % 2 == 0
    bits, uppers = [], []
    for _ in range(40):
        found = information(draws.normal(0, 1, count), label, np.arange(count), draws)
        bits.append(found.bits)
        uppers.append(found.upper)
    raw = 3 / (2 * count * math.log(2))
    assert abs(np.mean(bits)) < 0.4 * raw  # the deviation of the mean is an eighth
    assert min(uppers) > raw  # luck does not lower it


def test_the_promised_bound_can_be_kept_by_windows_that_tell_nothing() -> None:
    """6,200 windows a class: the limit of nothing is below 0.001 bit, 19 times of 20."""
    draws, count = rng(11), 12_400
    label = np.arange(count) % 2 == 0
    uppers = [
        information(draws.normal(0, 1, count), label, np.arange(count), draws).upper
        for _ in range(3)
    ]
    assert np.median(uppers) < 0.001


def test_blocks_widen_the_null_of_information() -> None:
    draws = rng(12)
    score = np.repeat(draws.normal(0, 1, 200), 10)
    label = np.repeat(np.arange(200) % 2 == 0, 10)
    found = information(score, label, np.repeat(np.arange(200), 10), draws)
    assert found.design == pytest.approx(10, rel=0.3)
    assert abs(found.bits) < 0.05
    bold = information(score, label, np.arange(2000), draws)
    assert bold.design < 1.5


def test_a_score_of_one_value_tells_nothing() -> None:
    label = np.arange(20) % 2 == 0
    found = information(np.zeros(20), label, np.arange(20), rng())
    assert found.bits == found.upper == 0


def test_labels_are_shuffled_by_the_block() -> None:
    block = np.repeat(np.arange(50), 3)
    label = np.repeat(np.arange(50) % 2 == 0, 3)
    new = permuted(label, block, rng())
    assert new.sum() == label.sum()
    assert (new != label).any()
    assert (new.reshape(50, 3) == new.reshape(50, 3)[:, :1]).all()
