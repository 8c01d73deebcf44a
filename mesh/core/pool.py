# SPDX-License-Identifier: MIT
"""When mail departs by port 25: on ticks that nothing but the clock decides.

    tick n   at phase + n * period; the phase is drawn once, at the node's start

What comes between two ticks waits for the next one: lookups, connections and retries
begin there and nowhere else, so no message chooses an instant that a snooper of the
exit's line sees.  How much leaves on a tick is the pool's `kind`; `none` is all of it.

Invariant: a tick that was missed (a machine that slept) is not made up for.
"""

import math

from mesh.core.chance import uniform
from mesh.core.crypto import Entropy


class Ticks:
    """The grid of ticks, `period` in seconds."""

    def __init__(self, period: float, entropy: Entropy) -> None:
        self._period = period
        self._phase = uniform(entropy, 0.0, period)

    def after(self, now: float) -> float:
        """Return the instant of the first tick that is later than `now`."""
        number = math.floor((now - self._phase) / self._period) + 1
        tick = self._phase + number * self._period
        # Rounding may put it at `now` itself: that one has been.
        return tick if tick > now else self._phase + (number + 1) * self._period
