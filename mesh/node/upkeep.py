# SPDX-License-Identifier: MIT
"""What the arena needs done by the clock, none of it because there is mail.

    each turn (1 s)   dirty pages to both copies; then their slots are free
    free slots low    twice as many: room set aside, sealed, written, then counted; a
                      step more while it is not known which are free (recovery.py)
    each 10 minutes   running time is written down
    each hour         a new arena key; every slot sealed anew; the old key destroyed

    re-wrap                    arena.key has        slots open under
    1 box with both written    old                  old
    2 pages sealed, flushed    new, previous: old   either
    3 box without the old one  new                  new

A crash before 3 leaves both keys in the file, and the next start finishes the work.
All writing is the writer thread's; sealing is the Trio thread's, in stretches of 3 ms
with everybody else in between.  One turn at a time.
"""

from collections.abc import Callable
from functools import partial
from typing import Final

import trio

from mesh.core.slot import SLOT_LEN, ArenaKeys
from mesh.errors import SpoolFullError
from mesh.node.arena import PAGE_SLOTS, SLOTS_MAX, Arena
from mesh.node.copies import Copies
from mesh.node.writer import Writer

REWRAP_SECONDS: Final = 3600
"""Life of an arena key: what a medium keeps of overwritten slots dies with it."""
CLOCK_SECONDS: Final = 600
"""Running time that a kill may cost."""
STEP_SLOTS: Final = 256
"""Slots sealed at a stretch: 3 ms."""
TURN_SLOTS: Final = 16_384
"""Slots sealed between two flushes: 2 MiB a copy."""
UNSETTLED_SLOTS: Final = 4096
"""Slots that an arena grows by while it is not known which are free: 0.1 s."""
SEAL_SLOTS: Final = 128
"""Renewed slots whose boxes are made between two turns of the loop: 1 ms."""
STEP_SECONDS: Final = 0.004
"""Pause between two stretches."""
FREE_MIN: Final = 1024
"""Free slots below which the arena grows: half a second of traffic at full speed."""
FREE_SHARE: Final = 32
"""Of a large arena, one slot in so many is kept free: it grows for longer, too."""


class Upkeep:
    """The arena's clockwork."""

    def __init__(
        self, arena: Arena, copies: Copies, writer: Writer, clock: Callable[[], float]
    ) -> None:
        self._arena = arena
        self._copies = copies
        self._writer = writer
        self._clock = clock
        self._began = clock() - arena.keys.running
        self._rewrap_due = clock() + REWRAP_SECONDS
        self._clock_due = clock() + CLOCK_SECONDS
        self._no_room = False

    @property
    def running_seconds(self) -> int:
        """Seconds for which nodes on this spool have run, all told."""
        return int(self._clock() - self._began)

    def is_low(self, need: int = 0) -> bool:
        """Say whether the arena should grow, and can, for so many slots at once."""
        arena = self._arena
        low = max(FREE_MIN, need)
        if arena.is_settled:
            low = max(low, arena.capacity // FREE_SHARE)
        return arena.free < low and arena.capacity < SLOTS_MAX and not self._no_room

    async def flush(self, also: Callable[[], None] | None = None) -> None:
        """Bring what is dirty to the disk; `also` runs on the writer thread after."""
        while self._arena.seal(SEAL_SLOTS):
            await trio.lowlevel.checkpoint()
        flush = self._arena.begin_flush()

        def work() -> None:
            if flush.pieces:
                self._copies.write(flush.pieces)
            if also is not None:
                also()

        await self._writer.call(work)
        self._arena.end_flush(flush)
        if flush.spent:
            self._no_room = False

    async def turn(self, need: int = 0) -> None:
        """Do what is due, where somebody waits for `need` slots; a flush went before."""
        if self.is_low(need):
            await self._grow()
        now = self._clock()
        if not self._arena.is_settled:
            pass  # what nobody has looked at is not sealed anew
        elif self._arena.keys.previous is not None:
            await self._rewrap()
        elif now >= self._rewrap_due:
            self._rewrap_due = now + REWRAP_SECONDS
            await self._adopt(self._arena.fresh_keys(self.running_seconds))
            await self._rewrap()
        elif now >= self._clock_due:
            self._clock_due = now + CLOCK_SECONDS
            await self.write_clock()

    async def write_clock(self) -> None:
        """Write running time down."""
        await self._adopt(self._arena.timed_keys(self.running_seconds))

    async def _adopt(self, keys: ArenaKeys) -> None:
        await self._writer.call(partial(self._copies.write_keys, self._arena.box(keys)))
        self._arena.adopt(keys)

    async def _grow(self) -> None:
        """Go on doubling the arena, or note that the disk has no room for it."""
        arena = self._arena
        more = arena.capacity
        if not arena.is_settled:
            more = min(more, UNSETTLED_SLOTS)
        goal = min(arena.capacity + more, SLOTS_MAX)
        try:
            await self._writer.call(partial(self._reserve, goal * SLOT_LEN))
        except SpoolFullError:
            self._no_room = True
            return
        sealed = len(arena.states)
        for _ in range(sealed, min(goal, sealed + TURN_SLOTS), STEP_SLOTS):
            arena.grow(STEP_SLOTS)
            await trio.sleep(STEP_SECONDS)
        await self.flush()
        if len(arena.states) == goal:
            await self._adopt(arena.grown_keys(self.running_seconds))

    def _reserve(self, length: int) -> None:
        try:
            self._copies.reserve(length)
        except OSError as error:
            raise SpoolFullError("the disk is full") from error

    async def _rewrap(self) -> None:
        """Seal the next part of the arena anew; after the last, destroy the old key."""
        finished = False
        for _ in range(0, TURN_SLOTS, STEP_SLOTS):
            finished = self._arena.rewrap(STEP_SLOTS // PAGE_SLOTS)
            if finished:
                break
            await trio.sleep(STEP_SECONDS)
        await self.flush()
        if finished:
            await self._adopt(self._arena.bare_keys(self.running_seconds))
