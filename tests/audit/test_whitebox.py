# SPDX-License-Identifier: MIT
"""The bound against closed forms, and that it holds for what the gaps really tell."""

import math

import numpy as np
import pytest
from scipy import integrate, stats

from mesh.audit.whitebox import bound, exact, seconds, told
from mesh.core.clock import Clock
from mesh.node.pacer.histogram import BUCKETS, LENGTH, Histogram, quantile


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("apart", [1e-9, 1e-4, 0.3, 2.0])
def test_what_two_normals_tell(apart: float) -> None:
    """Their log likelihood ratio is normal: AUC and information have closed forms."""
    draws, count = rng(), 40_000
    mean = apart**2 / 2
    ratio = np.concatenate(
        [draws.normal(-mean, apart, count), draws.normal(mean, apart, count)]
    )
    found = told(100, ratio)
    truth = stats.norm.cdf(apart / 2**0.5)
    assert found.auc - 0.5 == pytest.approx(truth - 0.5, rel=0.03)
    assert truth <= found.most <= 0.5 + 1.25 * (truth - 0.5)

    def density(x: float, side: float) -> float:
        return float(stats.norm.pdf(x, side * apart / 2))

    def bits(x: float) -> float:
        p, q = density(x, -1), density(x, 1)
        r = (q - p) / (q + p)
        return (p + q) / 2 * ((1 + r) * math.log1p(r) + (1 - r) * math.log1p(-r))

    whole = integrate.quad(bits, -8, 8)[0] / math.log(4)
    if apart > 1e-3:
        assert found.bits == pytest.approx(whole, rel=0.03)
    assert found.bits == pytest.approx(apart**2 / (8 * math.log(2)), rel=0.4)
    assert found.bits < found.bits_upper < 1.1 * found.bits


def test_a_ruler_shows_each_lateness() -> None:
    """Constant clock: a cell's lateness is seen, so one cell has a closed form."""
    laws = np.array([[0.9, 0.1], [0.6, 0.4]])
    found = exact(Clock.CONSTANT, 1, np.array([0.0, 0.1]), laws, rng(), 40_000)
    # Two outcomes: the AUC is one half and half the difference of the shares.
    assert found.auc == pytest.approx(0.5 + 0.3 / 2, abs=0.01)
    mean = laws.mean(axis=0)
    bits = (laws * np.log2(laws / mean)).sum() / 2
    assert found.bits == pytest.approx(bits, rel=0.05)


def test_a_slot_hides_a_lateness_within_its_curve() -> None:
    """One slotted cell, always late or never: the information is an integral."""
    late = 0.2
    laws = np.array([[1.0, 0.0], [0.0, 1.0]])

    def density(x: float) -> float:
        return 2 * math.sin(math.pi * x) ** 2 if 0 < x < 1 else 1e-12

    def bits(x: float) -> float:
        p, q = density(x), density(x - late)
        return (p * math.log2(2 * p / (p + q)) + q * math.log2(2 * q / (p + q))) / 2

    whole = integrate.quad(bits, 0, 1.2, points=[late, 1])[0]
    found = exact(Clock.SLOTTED, 1, np.array([0.0, late]), laws, rng(), 20_000)
    assert found.bits == pytest.approx(whole, rel=0.05)


def test_renewal_tells_what_its_first_gap_tells() -> None:
    """Two cells, one gap: the law of it is a mixture of shifted Erlangs."""
    late = np.array([0.0, 0.5])
    laws = np.array([[1.0, 0.0], [0.5, 0.5]])
    erlang = stats.gamma(4, scale=0.25)

    def busy(x: float) -> float:
        return float(
            0.5 * erlang.pdf(x) + 0.25 * (erlang.pdf(x - 0.5) + erlang.pdf(x + 0.5))
        )

    def bits(x: float) -> float:
        p, q = float(erlang.pdf(x)), busy(x)
        first = p * math.log2(2 * p / (p + q)) if p else 0.0
        return (first + (q * math.log2(2 * q / (p + q)) if q else 0.0)) / 2

    whole = integrate.quad(bits, -0.5, 6, points=[0, 0.5], limit=200)[0]
    found = exact(Clock.RENEWAL, 2, late, laws + 1e-12, rng(), 20_000)
    assert found.bits == pytest.approx(whole, rel=0.06)


def counts(shares: dict[int, int]) -> list[int]:
    row = [0] * BUCKETS
    for bucket, number in shares.items():
        row[bucket] = number
    return row


def test_the_pacers_counts_and_their_buckets() -> None:
    pacer = Histogram(bytearray(LENGTH))
    for late in (0.0, 60e-6, 60e-6, 1e-3):
        pacer.count(9, late)
    row = pacer.row(9)
    middle = seconds(BUCKETS)
    assert middle[0] == 0
    for bucket in (6, 10):
        assert row[bucket]
        only = [number if at == bucket else 0 for at, number in enumerate(row)]
        edge = quantile(only, 1.0)
        assert edge is not None
        assert edge / 2 < middle[bucket] < edge


def test_an_hour_of_a_quiet_host_tells_nothing() -> None:
    idle = counts({5: 20_000, 6: 60_000, 7: 19_000, 8: 900, 10: 100})
    busy = counts({5: 18_000, 6: 58_000, 7: 22_000, 8: 1_800, 10: 200})
    found = bound(Clock.RENEWAL, 1.0, 256, idle, busy, rng(), 100)
    assert 0.5 < found.auc <= found.most < 0.5001
    assert 0 < found.bits <= found.bits_upper < 1e-7
    shown = bound(Clock.CONSTANT, 1.0, 256, idle, busy, rng(), 100)
    assert shown.most > 0.9  # a ruler does not hide it


def test_nothing_differs_nothing_is_told() -> None:
    row = counts({5: 100, 12: 10})
    found = bound(Clock.RENEWAL, 64.0, 20, row, row, rng(), 50)
    assert found.most == 0.5
    assert found.bits_upper == 0


def test_a_bucket_that_one_never_saw_is_seldom_and_not_impossible() -> None:
    idle, busy = counts({5: 1_000}), counts({5: 999, 14: 1})
    found = bound(Clock.CONSTANT, 64.0, 1, idle, busy, rng(), 4_000)
    assert 0 < found.bits < 0.01


def test_longer_windows_tell_more() -> None:
    idle, busy = counts({5: 900, 12: 100}), counts({5: 800, 12: 200})
    bits = [
        bound(Clock.RENEWAL, 64.0, cells, idle, busy, rng(), 400).bits
        for cells in (8, 64, 512)
    ]
    assert bits[0] < bits[1] / 4 < bits[2] / 16


def test_what_it_needs() -> None:
    with pytest.raises(ValueError, match="counts of both"):
        bound(Clock.RENEWAL, 1.0, 10, counts({}), counts({1: 1}), rng())
    with pytest.raises(ValueError, match="no law"):
        bound(Clock.GREEDY, 1.0, 10, counts({1: 1}), counts({2: 1}), rng())
