# SPDX-License-Identifier: MIT
"""What the pacer shows of its instants, for the main process to look at when it likes.

    word    0    the next instant of all links: seconds of CLOCK_MONOTONIC, a double in
                 the machine's order; infinite without links
            1    instants that were, u64
    then    256  numbers of the links of the last instants, u64: instant n at n % 256

So the pacer wakes nobody: a call that wakes another process at each instant costs both
of them more than the cell does, and what is left out for padding would show.  It writes
the same words at each instant, whatever came.  The main process sleeps until a little
after the next one and takes up all that has come by then.

It lies behind the histogram in one memory; it says when, and of which link, and nothing
of mail.
"""

import math
import mmap
from typing import Final

from mesh.node.pacer.ring import ORDERED, fence

LOG_LEN: Final = 256
"""Instants: five times what 1,000 links at 1 cell/s have between two looks."""
LOG_SURE: Final = LOG_LEN // 2
"""More than that, and the oldest may be written over while they are read."""
LENGTH: Final = 8 * (2 + LOG_LEN)


class Board:
    """The words, from either side."""

    def __init__(self, memory: mmap.mmap | bytearray, at: int = 0) -> None:
        """`at`: where in the memory."""
        octets = memoryview(memory)[at : at + LENGTH]
        self._words = octets.cast("Q")
        self._seconds = octets[:8].cast("d")
        self._noted = 0
        self._seen = 0

    # the pacer

    def note(self, number: int) -> None:
        """A link's instant was now."""
        noted = self._noted
        words = self._words
        words[2 + noted % LOG_LEN] = number
        if not ORDERED:
            fence()
        self._noted = words[1] = noted + 1

    def show(self, due: float) -> None:
        """The next instant of all; infinite: there is none."""
        self._seconds[0] = due

    # the main process

    @property
    def due(self) -> float:
        """The next instant, or one that was just now."""
        return self._seconds[0]

    def begin(self) -> None:
        """Forget what an earlier pacer showed; there is none now."""
        self._seen = 0
        self._words[1] = 0
        self._seconds[0] = math.inf

    def looked(self) -> list[int] | None:
        """Links of the instants since the last call; None: too many to know."""
        noted = self._words[1]
        fence()
        since, self._seen = noted - self._seen, noted
        if since > LOG_SURE:
            return None
        words = self._words
        return [words[2 + at % LOG_LEN] for at in range(noted - since, noted)]
