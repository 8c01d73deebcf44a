# SPDX-License-Identifier: MIT
"""How late cells were: counts in shared memory, one row a class, doubling buckets.

    page    17 rows of 32 counters, u64; row = class (core/clock.py), and the last
            one for the trial at the start, which links do not enter
    bucket  b counts latenesses below 2**b microseconds and not below 2**(b - 1);
            the last one everything beyond

The pacer counts, the main process reads; an advance between two reads of one row is
harmless.  Counts say how busy this host is with other things and nothing of mail: the
work at an instant is the same with mail and without.
"""

import mmap
import os
from typing import Final

from mesh.core.clock import CLASS_MAX
from mesh.node.pacer import board
from mesh.node.pacer.board import Board

BUCKETS: Final = 32
MICROSECOND: Final = 1e-6
TRIAL: Final = CLASS_MAX + 1
"""The row of the trial."""
ROWS_LEN: Final = (TRIAL + 1) * BUCKETS * 8
LENGTH: Final = ROWS_LEN + board.LENGTH


class Histogram:
    """The counters, from either side."""

    def __init__(self, memory: mmap.mmap | bytearray) -> None:
        self._words = memoryview(memory)[:ROWS_LEN].cast("Q")
        self.board = Board(memory, ROWS_LEN)
        """What lies behind the counts."""

    @classmethod
    def create(cls) -> tuple["Histogram", int]:
        """Make the counters; also the descriptor for the pacer."""
        fd = os.memfd_create("mesh-lateness", os.MFD_CLOEXEC)
        os.ftruncate(fd, LENGTH)
        return cls(mmap.mmap(fd, LENGTH)), fd

    @classmethod
    def attach(cls, fd: int) -> "Histogram":
        """Open the counters behind a descriptor."""
        return cls(mmap.mmap(fd, LENGTH))

    def count(self, klass: int, late: float) -> None:
        """Count one cell that left `late` seconds after its instant."""
        bucket = int(late / MICROSECOND).bit_length() if late > 0 else 0
        if bucket >= BUCKETS:
            bucket = BUCKETS - 1
        self._words[klass * BUCKETS + bucket] += 1

    def row(self, klass: int) -> list[int]:
        """Counts of one class."""
        return list(self._words[klass * BUCKETS : (klass + 1) * BUCKETS])


def quantile(row: list[int], share: float) -> float | None:
    """Seconds below which this share of the cells was late; None without cells.

    The answer is a bucket's upper edge: too high by a factor of 2 at most.
    """
    total = sum(row)
    if not total:
        return None
    below = 0
    for bucket, number in enumerate(row):
        below += number
        if below >= share * total:
            return float(2**bucket) * MICROSECOND
    raise AssertionError("the counts changed while they were added")
