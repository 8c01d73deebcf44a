# SPDX-License-Identifier: MIT
"""What the database needs done, none of it in anybody's way.

    rows      whose records are all gone are deleted, DELETE_GROUPS in a statement, up to
              DELETE_MAX a turn, with commits of new groups between two statements; none
              before the arena on the disk says that they are gone
    the WAL   is folded in after CHECKPOINT_OCTETS, and when a turn has seen no commit

The WAL's length is reckoned, by whole pages: a small group costs three of them.  It is
what the next start after a crash has to read before it is ready.  What a crash left in
it counts, so that it does not grow from one crash to the next.

A statement that finds no room is tried again at the next turn.  Trio thread only; the
writer does the work.
"""

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Final

from mesh.errors import SpoolFullError
from mesh.node.groups import PAGE_LEN, Groups
from mesh.node.writer import Writer

DELETE_GROUPS: Final = 64
"""Rows deleted in one statement."""
DELETE_MAX: Final = 4096
"""Rows deleted in a turn: 1,000 messages that come one by one leave 1,000 a second."""
CHECKPOINT_OCTETS: Final = 65_536_000
"""Octets of the WAL between two checkpoints: 2,000 pages, which a start reads in 40 ms."""
COMMIT_PAGES: Final = 2
"""Pages of a commit beside those of its octets: where its row begins, and the last one
once more (groups.py)."""


class Tidying:
    """Deletes and folds in; `failed` hears of an error that ends the process."""

    def __init__(
        self, groups: Groups, writer: Writer, failed: Callable[[BaseException], None]
    ) -> None:
        self._groups = groups
        self._writer = writer
        self._failed = failed
        self.dead: deque[int] = deque()
        """Rows that hold nothing any more, in the order of their ends."""
        self.reckoned = groups.wal_octets()
        """Octets in the WAL that are not known to be in the database."""
        self._at_last_turn = 0

    def wrote(self, octets: int) -> None:
        """So much was committed."""
        pages = -(-octets // PAGE_LEN) + COMMIT_PAGES
        self.reckoned += pages * PAGE_LEN
        if self.reckoned > CHECKPOINT_OCTETS:
            self.checkpoint()

    def turn(self) -> None:
        """Fold the WAL in when nothing has come since the last turn."""
        if self.reckoned and self.reckoned == self._at_last_turn:
            self.checkpoint()
        self._at_last_turn = self.reckoned

    def checkpoint(self, *, last: bool = False) -> None:
        """Fold the WAL in; the last one of a life leaves it empty (groups.py)."""
        self.reckoned = 0
        job = partial(self._groups.checkpoint, last=last)
        self._writer.submit(job, self._checkpointed)

    def _checkpointed(self, _result: None, error: BaseException | None) -> None:
        if error is not None and not isinstance(error, SpoolFullError):
            self._failed(error)

    async def delete(self, count: int) -> None:
        """Delete the first `count` empty rows, as many of them as a turn may.

        What has come behind them, or comes while this works, was emptied in memory only:
        without its row, and its slot as it was, a peer's id would be nowhere after a
        power cut, and its message be stored twice.
        """
        left = min(count, DELETE_MAX)
        while left > 0:
            some = [self.dead.popleft() for _ in range(min(DELETE_GROUPS, left))]
            left -= len(some)
            try:
                await self._writer.call(partial(self._groups.delete, some))
            except SpoolFullError:
                self.dead.extendleft(reversed(some))
                return
            self.wrote(len(some) * PAGE_LEN)
