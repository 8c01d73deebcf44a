# SPDX-License-Identifier: MIT
"""Bounds are the promised ones with the promised data, and no narrower than noise."""

import math
import re

import numpy as np
import pytest

from mesh.audit import bounds
from mesh.audit.bounds import auc_promise, bound_of, information_promise
from mesh.audit.statistics import share_upper

PROMISES = [each for each in vars(bounds).values() if isinstance(each, bounds.Promise)]


@pytest.mark.parametrize("promise", PROMISES)
def test_the_bound_is_the_promised_one_from_the_promised_count_on(
    promise: bounds.Promise,
) -> None:
    assert bound_of(promise, promise.enough) == promise.bound
    assert bound_of(promise, 10 * promise.enough) == promise.bound
    wider = [bound_of(promise, promise.enough // n) for n in (1, 2, 4, 8)]
    assert wider == sorted(set(wider))
    assert bound_of(promise, 0) == math.inf
    assert f"{promise.bound:g}" in (bounds.__doc__ or "")
    assert f"{promise.enough:,}" in (bounds.__doc__ or "")


def test_long_windows_have_bounds_of_their_own() -> None:
    assert [auc_promise(n).bound for n in (32, 128, 1024, 3600)] == [
        0.52,
        0.52,
        0.55,
        0.55,
    ]
    assert information_promise(128).bound == 0.001
    assert information_promise(1024).bound == 0.006


@pytest.mark.parametrize(
    ("promise", "cells"), [(bounds.AUC_SHORT, 100), (bounds.AUC_LONG, 50)]
)
def test_an_auc_of_nothing_stays_below_its_bound(
    promise: bounds.Promise, cells: int
) -> None:
    """Its two-sided value and 1.645 standard errors, in 97 of 100 runs or more."""
    rng, n = np.random.default_rng(5), cells
    error = math.sqrt((2 * n + 1) / (12 * n * n))
    missed = 0
    for _ in range(300):
        ranks = rng.permutation(2 * n)[:n]
        auc = (ranks.sum() - n * (n - 1) / 2) / (n * n)
        missed += 0.5 + abs(auc - 0.5) + 1.645 * error > bound_of(promise, n)
    assert missed <= 9


def test_the_entropy_is_named() -> None:
    assert re.search(r">= 0\.9 ", bounds.__doc__ or "")
    assert bounds.ENTROPY == 0.9


def test_a_rate_s_bound_is_what_chance_finds_and_a_little_more() -> None:
    rng = np.random.default_rng(2)
    assert bounds.rate_bound(14_000) == bounds.rate_bound(20_000) == 0.002
    for count in (90, 1_000, 10_000):
        hits = rng.binomial(count, 0.001, 400)
        limits = [share_upper(int(hit), count) for hit in hits]
        missed = sum(limit > bounds.rate_bound(count) for limit in limits)
        assert missed <= 40
        assert bounds.rate_bound(count) < share_upper(max(5, count // 200), count)
