# SPDX-License-Identifier: MIT
"""When to try again what a receiver would not take for now.

    attempt   1     2     3    ...    10 and later
    wait      5 s   10 s  20 s ...    1 h

Each wait is multiplied by a draw in [0.75, 1.25), so that what failed together does
not come back together.  This is for places inside the mesh and on this machine, where
a short first wait costs nobody anything; port 25 has RFC 5321's patience of its own.
"""

from typing import Final

from mesh.core.crypto import Entropy

FIRST_SECONDS: Final = 5.0
"""A receiver that restarts is back in this time."""
LONGEST_SECONDS: Final = 3600.0
"""An operator who repaired something waits for no more than this."""


def retry_delay(attempts: int, entropy: Entropy) -> float:
    """Seconds until the next attempt, after `attempts` (1 or more) that failed."""
    wait = min(FIRST_SECONDS * 2.0 ** min(attempts - 1, 32), LONGEST_SECONDS)
    draw = int.from_bytes(entropy.octets(4), "big") / 2**32
    return wait * (0.75 + draw / 2)
