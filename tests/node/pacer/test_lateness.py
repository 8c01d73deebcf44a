# SPDX-License-Identifier: MIT
"""Which class is refused, and when late cells are told and no longer told."""

import pytest

from mesh.core.clock import Clock
from mesh.errors import ConfigError
from mesh.node.pacer.histogram import LENGTH, TRIAL, Histogram
from mesh.node.pacer.lateness import Lateness


@pytest.fixture
def histogram() -> Histogram:
    return Histogram(bytearray(LENGTH))


def test_the_trial_says_which_class_this_host_can_hold(histogram: Histogram) -> None:
    lateness = Lateness(histogram)
    lateness.check_class(Clock.RENEWAL, 15)  # nothing was tried
    for _ in range(1000):  # a host that wakes 3 ms late
        histogram.count(TRIAL, 0.003)
    lateness.check_class(Clock.RENEWAL, 0)
    lateness.check_class(Clock.RENEWAL, 9)
    lateness.check_class(Clock.GREEDY, 15)
    with pytest.raises(ConfigError, match=r"4096 us late.*: set 64,"):
        lateness.check_class(Clock.RENEWAL, 11)


def test_a_trial_with_some_good_wake_ups_holds(histogram: Histogram) -> None:
    for number in range(1000):
        histogram.count(TRIAL, 0.0 if number % 5 == 0 else 0.003)
    Lateness(histogram).check_class(Clock.RENEWAL, 15)


def cells(histogram: Histogram, good: int, late: int) -> None:
    for _ in range(good):
        histogram.count(9, 0.0)
    for _ in range(late):
        histogram.count(9, 0.1)


def test_more_than_one_in_a_thousand_is_told(histogram: Histogram) -> None:
    lateness = Lateness(histogram)
    cells(histogram, 9_990, 10)
    assert lateness.notices() == []
    cells(histogram, 9_989, 11)
    (notice,) = lateness.notices()
    assert notice.startswith("cells of 64/s leave late")


def test_it_is_told_of_the_time_since_the_last_look(histogram: Histogram) -> None:
    """A bad hour does not stay for ever, and a bad one shows after a good month."""
    cells(histogram, 0, 1000)  # another one has told that
    lateness = Lateness(histogram)
    assert lateness.notices() == []
    cells(histogram, 1_000, 50)
    assert len(lateness.notices()) == 1
    cells(histogram, 1_000, 0)
    assert lateness.notices() == []
    cells(histogram, 100_000, 0)
    assert lateness.notices() == []
    cells(histogram, 1_000, 50)
    assert len(lateness.notices()) == 1


def test_one_cell_alone_is_no_news(histogram: Histogram) -> None:
    """Of an eighth a second 75 leave in ten minutes."""
    lateness = Lateness(histogram)
    histogram.count(0, 3.0)
    assert lateness.notices() == []
    histogram.count(0, 3.0)
    histogram.count(0, 3.0)
    assert len(lateness.notices()) == 1


@pytest.mark.parametrize(("seconds", "told"), [(0.0005, False), (0.0011, True)])
def test_late_is_a_thirtieth_of_the_period(
    histogram: Histogram, seconds: float, told: bool
) -> None:
    """Of 64 a second: 0.52 ms; a bucket that reaches across does not count."""
    lateness = Lateness(histogram)
    for _ in range(10):
        histogram.count(9, seconds)
    assert bool(lateness.notices()) is told
