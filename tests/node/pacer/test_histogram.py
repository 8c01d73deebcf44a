# SPDX-License-Identifier: MIT
"""Lateness: counted by powers of two, read as a bound."""

import math
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.node.pacer.histogram import BUCKETS, LENGTH, Histogram, quantile


@given(
    st.lists(st.floats(-0.001, 3.0), min_size=1, max_size=50), st.sampled_from([0.5, 1])
)
def test_a_quantile_is_never_too_low_and_at_most_twice_too_high(
    lates: list[float], share: float
) -> None:
    histogram = Histogram(bytearray(LENGTH))
    for late in lates:
        histogram.count(3, late)
    bound = quantile(histogram.row(3), share)
    true = sorted(lates)[math.ceil(len(lates) * share) - 1]
    assert bound is not None
    assert true < bound <= 2 * max(true, 0.0) + 2e-6


def test_rows_are_classes_and_nothing_counted_is_no_number() -> None:
    histogram = Histogram(bytearray(LENGTH))
    histogram.count(15, 1e9)  # past the last bucket: in it
    assert sum(histogram.row(15)) == histogram.row(15)[BUCKETS - 1] == 1
    assert quantile(histogram.row(14), 0.999) is None


def test_both_ends_see_the_same_counts() -> None:
    ours, fd = Histogram.create()
    theirs = Histogram.attach(fd)
    os.close(fd)
    theirs.count(3, 0.0)
    assert ours.row(3)[0] == 1
    assert quantile(ours.row(3), 0.999) == pytest.approx(1e-6)
