# SPDX-License-Identifier: MIT
"""The laws of departure: their classes, their draws, and that lateness never enters."""

import itertools
import math
import statistics
from collections.abc import Callable, Sequence

import pytest

from mesh.core.clock import (
    Clock,
    Constant,
    Draws,
    Law,
    Poisson,
    Renewal,
    Slotted,
    class_of,
    law_of,
    period_of,
    raised_cosine,
    rate_of,
)
from tests.harness import FixedEntropy

MANY = 20_000
LAWS = [clock for clock in Clock if clock is not Clock.GREEDY]
ANY_LAW = pytest.mark.parametrize("clock", LAWS)


def of(clock: Clock, klass: int = 3, now: float = 0.0, seed: str = "") -> Law:
    return law_of(clock, klass, FixedEntropy(seed).key(), now)


def instants(law: Law, count: int = MANY) -> list[float]:
    """The next instants, the one that is due first."""
    return [law.due, *(law.advance() for _ in range(count - 1))]


def gaps(law: Law) -> list[float]:
    at = instants(law, MANY + 1)
    return [after - before for before, after in itertools.pairwise(at)]


def distance(values: Sequence[float], below: Callable[[float], float]) -> float:
    """Kolmogorov's and Smirnov's: the greatest step between a sample and its law.

    Times the root of the count it passes 1.63 in one sample of a hundred.
    """
    ranked = sorted(values)
    worst = max(
        max(below(value) - rank / len(ranked), (rank + 1) / len(ranked) - below(value))
        for rank, value in enumerate(ranked)
    )
    return worst * math.sqrt(len(ranked))


def erlang_4(gap: float) -> float:
    """Share of gaps below this many T: four exponentials of mean 1/4."""
    x = 4 * gap
    return 1 - math.exp(-x) * (1 + x + x**2 / 2 + x**3 / 6)


def raised_cosine_below(place: float) -> float:
    return place - math.sin(2 * math.pi * place) / (2 * math.pi)


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
    assert list(Clock) == sorted(Clock)
    assert [clock.name.lower() for clock in Clock] == [
        "renewal",
        "slotted",
        "poisson",
        "constant",
        "greedy",
    ]


def test_greedy_has_no_law() -> None:
    with pytest.raises(KeyError):
        of(Clock.GREEDY)


@pytest.mark.usefixtures("repeats")
def test_draws_are_uniform_and_never_zero() -> None:
    draws = Draws(FixedEntropy().key())
    values = [draws.unit() for _ in range(MANY)]
    assert min(values) > 0
    assert max(values) <= 1
    assert distance(values, lambda value: value) < 1.63
    assert abs(statistics.mean(values) - 0.5) < 0.01
    assert abs(statistics.pvariance(values) - 1 / 12) < 0.002
    assert len(set(values)) == len(values)


@pytest.mark.usefixtures("repeats")
def test_draws_do_not_repeat_one_another_at_any_step() -> None:
    draws = Draws(FixedEntropy().key())
    values = [draws.unit() - 0.5 for _ in range(MANY)]
    for step in (1, 2, 127, 128, 129):  # 128 come of one block
        together = sum(
            one * other for one, other in zip(values, values[step:], strict=False)
        )
        assert abs(together / MANY * 12) < 4 / math.sqrt(MANY)


# each law against its mathematics


@pytest.mark.usefixtures("repeats")
def test_renewal_gaps_are_erlang_4() -> None:
    found = gaps(of(Clock.RENEWAL))
    assert min(found) > 0
    assert abs(statistics.mean(found) - 1) < 0.015
    assert abs(statistics.pstdev(found) - 0.5) < 0.01
    assert distance(found, erlang_4) < 1.63
    below = sum(gap < 2.51 for gap in found) / len(found)
    assert abs(below - 0.99) < 0.003


@pytest.mark.usefixtures("repeats")
def test_poisson_gaps_are_exponential() -> None:
    found = gaps(of(Clock.POISSON))
    assert min(found) > 0
    assert abs(statistics.mean(found) - 1) < 0.03
    assert abs(statistics.pstdev(found) - 1) < 0.03
    assert distance(found, lambda gap: 1 - math.exp(-gap)) < 1.63
    # And the law of one is not that of the other, so the test can tell.
    assert distance(found, erlang_4) > 10


@pytest.mark.usefixtures("repeats")
@pytest.mark.parametrize("clock", [Clock.RENEWAL, Clock.POISSON])
def test_a_gap_says_nothing_of_the_next(clock: Clock) -> None:
    found = [gap - 1 for gap in gaps(of(clock))]
    together = sum(one * other for one, other in itertools.pairwise(found))
    assert abs(together / sum(gap**2 for gap in found)) < 4 / math.sqrt(MANY)


@pytest.mark.usefixtures("repeats")
def test_slotted_leaves_once_in_each_slot_away_from_its_edges() -> None:
    law = of(Clock.SLOTTED)
    at = instants(law)
    assert isinstance(law, Slotted)
    places = [(each - law._start) % 1.0 for each in at]
    slots = [math.floor(each - law._start) for each in at]
    assert slots == list(range(slots[0], slots[0] + MANY))
    assert distance(places, raised_cosine_below) < 1.63
    assert abs(statistics.mean(places) - 0.5) < 0.005
    assert abs(statistics.pvariance(places) - (1 / 12 - 1 / (2 * math.pi**2))) < 0.001
    assert sum(not 0.05 < place < 0.95 for place in places) / MANY < 0.003
    # Uniform places, as a snooper would like them, are told from these.
    assert distance(places, lambda place: place) > 10


@pytest.mark.usefixtures("repeats")
def test_slotted_waits_are_below_two_periods_always() -> None:
    for seed in range(200):
        law = of(Clock.SLOTTED, now=5.0, seed=str(seed))
        at = [5.0, *instants(law, 50)]
        assert all(0 < after - before < 2 for before, after in itertools.pairwise(at))


def test_the_raised_cosine_is_the_inverse_of_its_distribution() -> None:
    for step in range(1, 1000):
        place = raised_cosine(step / 1000)
        assert 0 < place < 1
        assert raised_cosine_below(place) == pytest.approx(step / 1000, abs=1e-11)
    assert raised_cosine(0.5) == pytest.approx(0.5, abs=1e-11)
    assert raised_cosine(1.0) <= 1
    assert raised_cosine(2.0**-56) > 0


@pytest.mark.usefixtures("repeats")
def test_constant_is_a_grid_whose_phase_alone_is_drawn() -> None:
    law = of(Clock.CONSTANT, klass=9, now=100.0)
    at = instants(law, 100_000)
    start = at[0]
    assert 100 < start <= 100 + 1 / 64
    assert at == [start + number / 64 for number in range(100_000)]  # to the last bit


PHASES = 1_000


@pytest.mark.usefixtures("repeats")
@ANY_LAW
def test_links_begun_at_one_instant_part(clock: Clock) -> None:
    """The first instants of many links are spread over a period, and past no two."""
    first = [of(clock, seed=str(number)).due for number in range(PHASES)]
    assert len(set(first)) == PHASES
    assert min(first) > 0
    if clock is Clock.SLOTTED:
        assert max(first) < 2
        # Until the next of a stationary grid whose points stray: the mean is near T/2.
        assert 0.4 < statistics.mean(first) < 0.7
    else:
        assert max(first) <= 1
        assert distance(first, lambda value: value) < 1.63


# what enters no law


@ANY_LAW
def test_instants_do_not_depend_on_when_they_are_asked_for(clock: Clock) -> None:
    """Two links of the same draws: one is stepped at once, one late, and in bursts."""
    one, two = of(clock, klass=9, now=5.0), of(clock, klass=9, now=5.0)
    at_once = instants(one, 300)
    late: list[float] = []
    for burst in (1, 2, 50, 7, 240):
        for _ in range(burst):
            late.append(two.due)
            assert two.due == late[-1]  # however often it is looked at
            two.advance()
    assert late == at_once


@ANY_LAW
def test_a_law_begun_later_is_the_same_law_later(clock: Clock) -> None:
    now = instants(of(clock, now=0.0), 200)
    later = instants(of(clock, now=1024.0), 200)
    assert later == pytest.approx([1024.0 + at for at in now], abs=1e-9)


@pytest.mark.usefixtures("repeats")
@ANY_LAW
@pytest.mark.parametrize("klass", [0, 3, 15])
def test_the_period_is_the_class_s_and_instants_only_grow(
    clock: Clock, klass: int
) -> None:
    law = of(clock, klass=klass)
    at = instants(law, 4_000)
    assert all(before < after for before, after in itertools.pairwise(at))
    mean = (at[-1] - at[0]) / (len(at) - 1)
    assert mean == pytest.approx(period_of(klass), rel=0.05)
    assert law.advance() == law.due


@ANY_LAW
def test_other_draws_are_other_instants(clock: Clock) -> None:
    assert instants(of(clock, seed="one"), 20) != instants(of(clock, seed="two"), 20)


def test_each_clock_has_its_law() -> None:
    kinds = [type(of(clock)) for clock in LAWS]
    assert kinds == [Renewal, Slotted, Poisson, Constant]
