# SPDX-License-Identifier: MIT
"""Waits grow, are bounded, and part what failed together; patience has an end."""

import pytest

from mesh.core.retry import (
    ATTEMPTS_MIN,
    GIVE_UP_SECONDS,
    INSIDE,
    OUTSIDE,
    Patience,
    is_given_up,
    retry_delay,
)
from tests.harness import FixedEntropy


@pytest.mark.parametrize("patience", [INSIDE, OUTSIDE])
def test_waits_double_up_to_the_longest(patience: Patience) -> None:
    entropy = FixedEntropy()
    for attempts in range(1, 2000):
        mean = min(patience.first * 2.0 ** min(attempts - 1, 99), patience.longest)
        wait = retry_delay(attempts, entropy, patience)
        assert 0.75 * mean <= wait < 1.25 * mean


def test_the_schedules_are_the_contracts() -> None:
    assert (INSIDE.first, INSIDE.longest) == (5, 3600)
    assert (OUTSIDE.first, OUTSIDE.longest) == (300, 4000)
    assert (GIVE_UP_SECONDS, ATTEMPTS_MIN) == (5 * 86_400, 20)


def test_what_failed_together_parts() -> None:
    entropy = FixedEntropy()
    assert len({retry_delay(3, entropy) for _ in range(50)}) == 50


def test_giving_up_needs_both() -> None:
    assert is_given_up(ATTEMPTS_MIN, GIVE_UP_SECONDS)
    assert not is_given_up(ATTEMPTS_MIN - 1, GIVE_UP_SECONDS * 9)
    assert not is_given_up(ATTEMPTS_MIN * 9, GIVE_UP_SECONDS - 1)
