# SPDX-License-Identifier: MIT
"""Waits grow, are bounded, and part what failed together."""

from mesh.core.retry import FIRST_SECONDS, LONGEST_SECONDS, retry_delay
from tests.harness import FixedEntropy


def test_waits_double_up_to_the_longest() -> None:
    entropy = FixedEntropy()
    for attempts in range(1, 2000):
        mean = min(FIRST_SECONDS * 2.0 ** min(attempts - 1, 99), LONGEST_SECONDS)
        assert 0.75 * mean <= retry_delay(attempts, entropy) < 1.25 * mean


def test_what_failed_together_parts() -> None:
    entropy = FixedEntropy()
    assert len({retry_delay(3, entropy) for _ in range(50)}) == 50
