# SPDX-License-Identifier: MIT
"""The time on the wall, as far as a running node believes this machine's clock.

Descriptors, directories, hours of leaving, withheld addresses: all of these end at a UNIX
time.  A machine's clock may be set wrong while the node runs, by hand or by whoever
answers for its time server, and would end all of them at once.  Hence:

    at the start         the machine's clock is believed, whatever it says
    from then on         running time is added to that (CLOCK_BOOTTIME: sleep counts, and
                         nobody sets it)
    each second, a look  at the difference between that and the machine's clock

    difference           what becomes of it
    at most 300 s        followed: clocks drift, and are put right; but by no more than
                         300 s a day in all: many small steps are a large one
    more                 not believed; `notices` says so, until the difference is gone
    more, for a day      believed: a step that stands so long is no accident, and an
                         operator who looks once a day has seen the line before
    anew, unlike that    not believed, and its own day begins

A start believes at once: an operator who knows that the clock is right now restarts the
node.  The ages of mail are no matter of this: they count running seconds (spool.py).

`look` belongs to one task; the time may be asked for in any thread.
"""

import math
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Final

import trio

LOOK_SECONDS: Final = 1.0
"""Between two looks."""
STEP_SECONDS: Final = 300.0
"""A difference that is followed: no clock drifts by so much in a second, and nothing that
a directory says is as short."""
STANDS_SECONDS: Final = 86_400.0
"""For which a step is not believed: a day."""


class WallTime:
    """The believed time: call it for UNIX seconds."""

    def __init__(
        self,
        wall: Callable[[], float] = lambda: time.time(),
        running: Callable[[], float] = lambda: time.clock_gettime(time.CLOCK_BOOTTIME),
    ) -> None:
        self._wall = wall
        self._running = running
        self._began = wall() - running()  # of the believed time, on the running clock
        self._step = 0.0
        self._since = 0.0
        self._moved = (
            0.0  # by the steps that were followed; STEP_SECONDS wear off a day
        )
        self._looked = running()

    def __call__(self) -> float:
        """Give UNIX seconds."""
        return self._began + self._running()

    @property
    def notices(self) -> list[str]:
        """What an operator should know, a line each."""
        if not self._step:
            return []
        ahead = "ahead of" if self._step > 0 else "behind"
        by = timedelta(seconds=round(abs(self._step)))
        return [
            f"this machine's clock was set, to {by} {ahead} this node's time: not "
            "believed for a day: put it right, or, if it is right now, restart the node"
        ]

    def look(self) -> None:
        """Compare with the machine's clock, and draw the consequence."""
        running = self._running()
        step = self._wall() - self()
        self._wear_off(running)
        if abs(step) <= STEP_SECONDS and abs(self._moved + step) <= STEP_SECONDS:
            self._moved += step
            self._follow(step)
        elif not self._step or abs(step - self._step) > STEP_SECONDS:
            self._step, self._since = step, running
        elif running - self._since >= STANDS_SECONDS:
            self._follow(step)

    def _wear_off(self, running: float) -> None:
        """Forget what was followed long ago."""
        worn = (running - self._looked) / STANDS_SECONDS * STEP_SECONDS
        self._moved = math.copysign(max(0.0, abs(self._moved) - worn), self._moved)
        self._looked = running

    def _follow(self, step: float) -> None:
        self._began += step
        self._step = 0.0

    async def run(self) -> None:
        """Look for ever."""
        while True:
            self.look()
            await trio.sleep(LOOK_SECONDS)
