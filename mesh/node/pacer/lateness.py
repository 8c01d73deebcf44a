# SPDX-License-Identifier: MIT
"""What the operator is told of late cells: by the trial at the start, later by the counts.

    at the start   a class that the host's best wake-ups miss is refused
    each tick      a line for each class of which, since the tick before, more than one
                   cell in a thousand left after T/30, and more than one cell at all

The tick is the one on which every count that `status` tells changes (control.py), so
that a line goes when the host has been quiet for as long.
"""

from typing import Final

from mesh.core.clock import CLASS_MAX, Clock, period_of, rate_of
from mesh.errors import ConfigError
from mesh.node.pacer.histogram import (
    MICROSECOND,
    TRIAL,
    Histogram,
    quantile,
)

TRIAL_SHARE: Final = 0.1
"""Of the trial's wake-ups, those that must be in time: a host that is busy at its start
may hold the class all the same, and one whose best wake-ups are too late never does.
What cells really do is counted while they leave, and `status` says it."""
UNTRIED: Final = 9
"""64 cells a second: half a millisecond, which any host keeps when it is not busy."""
LATE_PART: Final = 30
"""A cell may be late by T/30, which 128 cells of `renewal` do not show."""
LATE_SHARE: Final = 0.001
"""So many may be later."""


class Lateness:
    """The pacer's counts, and those of them that were told."""

    def __init__(self, histogram: Histogram) -> None:
        self._histogram = histogram
        self._told = [histogram.row(klass) for klass in range(CLASS_MAX + 1)]

    def check_class(self, clock: Clock, klass: int) -> None:
        """ConfigError when this host wakes too late for a class, by the trial.

        A `greedy` link has no instants to be late at, and up to UNTRIED a moment's load
        would refuse what the host holds: there the count of late cells speaks alone.
        """
        if clock is Clock.GREEDY or klass <= UNTRIED:
            return
        late = quantile(self._histogram.row(TRIAL), TRIAL_SHARE) or 0.0
        if late <= period_of(klass) / LATE_PART:
            return
        holds = klass
        while holds > UNTRIED and late > period_of(holds) / LATE_PART:
            holds -= 1
        raise ConfigError(
            f"cells_per_second: this host wakes up to {late * 1e6:.0f} us late, and "
            f"this class allows {period_of(klass) / LATE_PART * 1e6:.0f}: "
            f"set {2.0 ** (holds - 3):g}, or let the service run in real time "
            "(LimitRTPRIO=1)"
        )

    def notices(self) -> list[str]:
        """Give a line for each class whose cells were late since the last call."""
        lines = []
        for klass, told in enumerate(self._told):
            row = self._histogram.row(klass)
            self._told[klass] = row
            if is_late(
                [now - then for now, then in zip(row, told, strict=True)], klass
            ):
                lines.append(
                    f"cells of {rate_of(klass):g}/s leave late: this host is too busy, "
                    "or this rate too high for it"
                )
        return lines


def is_late(row: list[int], klass: int) -> bool:
    """Whether too many of the cells that are counted in a row left after T/30.

    A bucket counts when all of it is later; so T/30 may be passed by a factor of 2.
    """
    allowed = period_of(klass) / LATE_PART
    late = sum(
        number
        for bucket, number in enumerate(row)
        if bucket and 2.0 ** (bucket - 1) * MICROSECOND >= allowed
    )
    return late > max(1.0, LATE_SHARE * sum(row))
