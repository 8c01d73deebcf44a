# SPDX-License-Identifier: MIT
"""Whether this machine stood still, slept or was cloned: the main process's look.

A clone goes on with the same keys, and would use a nonce of theirs twice.  The pacer
looks before each cell and ends with all its links (loop.py has the signs, and
generation.py says where there is none: a snapshot of memory, on many hosts).  What
keys the main process still holds end here:

    `greedy` links            before the next call that sends
    unfinished handshakes     before their next message, and before they become a link
    links that wait for the   with the pacer, and before they are given (client.py):
    pacer                     one that starts meanwhile knows nothing of a move

`moves` counts; whoever has keys notes it with them and asks again before each use.  The
machine is looked at each second too: else a quiet hour would look like a gap.
"""

import time
from collections.abc import Callable
from typing import Final

import trio

from mesh.node.pacer.loop import Machine

LOOK_SECONDS: Final = 1.0


class Standstill:
    """Counts the times at which this machine may have become another one."""

    def __init__(
        self,
        machine: Callable[[], Machine] = Machine,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._make, self._monotonic = machine, monotonic
        self._machine = self._begin()
        self._moves = 0

    def moves(self) -> int:
        """Look, and give how often it moved since the start."""
        now = self._monotonic()
        if self._machine.moved(now, now):
            self._machine.close()
            self._machine = self._begin()
            self._moves += 1
        return self._moves

    def _begin(self) -> Machine:
        machine, now = self._make(), self._monotonic()
        machine.moved(now, now)  # from here on it counts
        return machine

    async def watch(self) -> None:
        """Look each second, for ever."""
        while True:
            self.moves()
            await trio.sleep(LOOK_SECONDS)
