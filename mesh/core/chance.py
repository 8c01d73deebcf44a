# SPDX-License-Identifier: MIT
"""Lengths of time that nobody can foretell, drawn from the entropy we are given.

    draw     5 octets, big-endian, over 2**40
    result   low + (high - low) * draw, so low is possible and high is not

Invariant: one draw takes one call for 5 octets, whatever comes of it.
Nothing here is secret, and nothing here has randomness of its own.
"""

from typing import Final

from mesh.core.crypto import Entropy

DRAW_LEN: Final = 5
"""Octets: steps finer than any clock's, and so much coarser than a double's 53 bits
that the sum never rounds up to `high`."""


def uniform(entropy: Entropy, low: float, high: float) -> float:
    """Draw a number of seconds, all equally likely, in [low, high)."""
    draw = int.from_bytes(entropy.octets(DRAW_LEN), "big")
    return low + (high - low) * (draw / (1 << 8 * DRAW_LEN))
