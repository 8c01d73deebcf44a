# SPDX-License-Identifier: MIT
"""When to try again what a receiver would not take for now, and when to give up.

    attempt   1       2        3    ...   longest
    inside    5 s     10 s     20 s       1 h        links and this machine's remailers
    outside   5 min   10 min   20 min     4,000 s    port 25, RFC 5321 4.5.4.1

Each wait is multiplied by a draw in [0.75, 1.25), so that what failed together does
not come back together.  Inside, a short first wait costs nobody anything; outside, what
a wait ends in is a place in a queue, and the pool's next tick decides when it leaves.

Given up is what has waited GIVE_UP_SECONDS of *running* time and failed ATTEMPTS_MIN
times: a node that was switched off for a week has not tried for a week.
"""

from dataclasses import dataclass
from typing import Final

from mesh.core.crypto import Entropy


@dataclass(frozen=True)
class Patience:
    """The first and the longest wait, in seconds."""

    first: float
    longest: float


INSIDE: Final = Patience(5.0, 3600.0)
"""A receiver that restarts is back in 5 s; who repaired something waits 1 h at most."""
OUTSIDE: Final = Patience(300.0, 4000.0)
"""Greylisting asks for 5 min; 4,000 s is Postfix's, and makes 100 attempts in 5 days."""
GIVE_UP_SECONDS: Final = 432_000
"""5 days: what RFC 5321 4.5.4.1 asks for at least."""
ATTEMPTS_MIN: Final = 20
"""Failures before anything is given up, however old: a queue that was set aside by a
restart or a long outage of our own has its chance."""


def retry_delay(attempts: int, entropy: Entropy, patience: Patience = INSIDE) -> float:
    """Seconds until the next attempt, after `attempts` (1 or more) that failed."""
    wait = min(patience.first * 2.0 ** min(attempts - 1, 32), patience.longest)
    draw = int.from_bytes(entropy.octets(4), "big") / 2**32
    return wait * (0.75 + draw / 2)


def is_given_up(attempts: int, age_seconds: int) -> bool:
    """Say whether what failed so often and waited so long is given up."""
    return attempts >= ATTEMPTS_MIN and age_seconds >= GIVE_UP_SECONDS
