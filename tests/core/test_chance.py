# SPDX-License-Identifier: MIT
"""Draws of seconds: the ends of the range, and their evenness."""

import pytest

from mesh.core.chance import uniform
from mesh.core.crypto import Key
from tests.harness import FixedEntropy


class Stuck:
    """An entropy that always gives the same octet."""

    def __init__(self, octet: int) -> None:
        self._octet = octet

    def octets(self, length: int) -> bytes:
        return bytes([self._octet]) * length

    def key(self) -> Key:
        raise AssertionError("seconds are no secret")


def test_the_ends() -> None:
    assert uniform(Stuck(0), 0.1, 1.1) == 0.1
    assert uniform(Stuck(0), 60.0, 180.0) == 60.0
    assert uniform(Stuck(255), 60.0, 180.0) < 180.0
    assert uniform(Stuck(255), 0.0, 1.0) == 1.0 - 2.0**-40
    assert uniform(Stuck(0x80), 0.0, 2.0) == pytest.approx(1.0, abs=0.01)


def test_every_tenth_of_the_range_is_as_likely() -> None:
    entropy = FixedEntropy("evenness")
    tenths = [0] * 10
    for _ in range(5000):
        tenths[int(uniform(entropy, 0.0, 10.0))] += 1
    assert min(tenths) > 420
    assert max(tenths) < 580
