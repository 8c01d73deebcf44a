# SPDX-License-Identifier: MIT
"""What a start finds in the spool: who is still waiting, what is rubbish, what is damaged.

First every row that was there at the start, oldest first, a head a record:

    the slot                         the record
    opens, same generation           waits, if its head opens; the slot is HELD
    opens, greater generation        is delivered; a row of such alone is rubbish
    anything else                    is damaged, and its row is kept for the operator
    its row's number is damaged      is damaged when it is asked for; counted once more
      or a search misses it by that  the same: its slot is held, and nothing is deleted
    its leaf of the b-tree says      is lost and not counted: SQLite finds no fault, and
    that it has fewer rows           nobody knows how many there were; its slot is freed

then every slot that no row has claimed: it is free, or a tombstone, or damaged.  Only
then is it known which slots of the old arena are free, and which ids are known.

A row's number may be damaged, and SQLite searches by it.  So each stretch begins with a
row that the one before has seen, and is read from the start of the table when a search
does not find just that row; the end is a row too, and not a number.  A number out of
order, and one that two rows have, is of rows that are kept.  Where there is no way on,
or a row is found twice, the start ends with SpoolCorruptError: no slot is freed then.

A million records take 20 s of one core, so what may be many is read beside the running
node, STEP_RECORDS at a time on the Trio thread, the rows ahead of it by the writer.
Until that is complete:

    new records      take slots behind the old end of the arena, which grows (upkeep.py)
    a peer's ID=     nobody can say whether it is known: its message is not stored yet
                     and answered late (peer.py); so is the drop folder's (drop.py)
    a peer's DONE    is kept, and obeyed again in the end; no peer may have more of
                     them kept than could still be, of EARLY_MAX
    a re-wrap        waits: it would open slots that nobody has looked at

Nothing is written by this but the deletion of rubbish: a crash in its middle leaves what
the crash before it left.  A row is deleted only when each of its records moved on, and
none before all rows were read.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Final

import trio

from mesh.core.crypto import Key
from mesh.core.record import HEAD_LEN, NO_ID, Record, open_head_untrusted, sealed_len
from mesh.errors import RemoteProtocolError, SpoolCorruptError
from mesh.node.arena import Arena, State
from mesh.node.groups import BEFORE_ALL, DAMAGED, TAIL_ROWS, Groups
from mesh.node.ids import Ids
from mesh.node.index import Index, Ref, ref_of, slot_of
from mesh.node.parking import Parking
from mesh.node.row import Row
from mesh.node.shares import Shares, sealed_charge
from mesh.node.writer import Writer

STEP_RECORDS: Final = 64
"""Records, or slots, at a stretch: 1 ms of the Trio thread."""
READ_RECORDS: Final = 1024
"""Records whose rows are read at once, by about: a megabyte of heads, some ms of the
writer's time between two commits; and many rows, to be seen in their order."""
EARLY_MAX: Final = 65_536
"""DONEs kept for ids that may still be found; more cost 8 days of memory each.  One
peer alone has half of them at most, so that there is room for others'."""

Found = Callable[[Ref, Record], None]
"""Hears who waits, without contents."""


class Recovery:
    """Reads what is there, all at once or a little at a time."""

    def __init__(
        self,
        arena: Arena,
        groups: Groups,
        index: Index,
        ids: Ids,
        shares: Shares,
        corrupt: set[Ref],
        rubbish: deque[int],
    ) -> None:
        """Each of these is filled; `rubbish` gets rows."""
        self._arena = arena
        self._groups = groups
        self._index = index
        self._ids = ids
        self._shares = shares
        self._corrupt = corrupt
        self._rubbish = rubbish
        self._row = BEFORE_ALL
        self._next: Row | None = None
        """With which the next stretch begins."""
        self._wide = 0
        """Records in the longest stretch that was looked for from the start."""
        self._mark, self._behind, self._left = _end(groups.tail())
        self.last_row = groups.next_id() - 1
        """The newest row that was there at the start."""
        self._early: dict[bytes, list[bytes]] = {}
        self.early = 0
        """DONEs that are kept."""
        self._calls: list[Callable[[], None]] = []
        self._parking = Parking()
        self._coming: tuple[Sequence[Row] | None, BaseException | None] | None = None
        self.damaged = 0
        """Records that no slot stands for."""
        self._disordered = 0
        self._doubtful: set[int] = set()
        """Numbers that are out of order, or of two rows."""
        self.is_complete = False
        """Everything was read."""

    def was_there(self, ref: Ref) -> bool:
        """Say whether a record that waits was there before this process was."""
        slot, generation = slot_of(ref)
        return (
            ref not in self._corrupt
            and self._arena.is_held(slot, generation)
            and self._index.place(slot)[0] <= self.last_row
        )

    def when_complete(self, call: Callable[[], None]) -> None:
        """Call it when everything was read, which it is not yet."""
        self._calls.append(call)

    def done_early(self, origin: bytes, origin_id: bytes) -> None:
        """Note that an id is not needed any more, which may be found later."""
        theirs = self._early.setdefault(origin, [])
        if len(theirs) < EARLY_MAX - self.early:
            theirs.append(origin_id)
            self.early += 1

    def heads(self) -> Iterator[tuple[Ref, Record]]:
        """Give who waits, oldest first; blocks.  It must be read to its end."""
        while rows := self._read():
            for row in rows:
                yield from self._take(row)
        while not self.is_complete:
            self._settle(READ_RECORDS)

    async def go_on(
        self, writer: Writer, found: Found, breathe: Callable[[], None]
    ) -> None:
        """Read it beside everybody else; they breathe between two stretches."""
        self._ask(writer)
        while rows := await self._answer():
            self._ask(writer)  # the disk works while this thread does
            work = 0
            for row in rows:
                for ref, head in self._take(row):
                    found(ref, head)
                work += max(1, len(row.entries))
                if work >= STEP_RECORDS:
                    work = 0
                    breathe()
                    await pause()
        while not self.is_complete:
            breathe()
            await pause()
            self._settle(STEP_RECORDS)

    def _ask(self, writer: Writer) -> None:
        self._coming = None
        writer.submit(self._read, self._came)

    def _came(self, rows: Sequence[Row] | None, error: BaseException | None) -> None:
        self._coming = rows, error
        self._parking.wake()

    async def _answer(self) -> Sequence[Row] | None:
        while self._coming is None:
            await self._parking.park()
        rows, error = self._coming
        if error is not None:
            raise error
        return rows

    def _read(self) -> Sequence[Row]:
        """Read the next rows, on whichever thread has the database.

        The last row of a stretch is not given: it is the first one of the next.  Of what
        is out of order as much is counted: what else cannot be found nobody knows.
        """
        if self._left == 0:
            return ()
        rows = self._ahead()
        given = rows[:-1] or rows
        end = self._end_in(given)
        if end is None and len(rows) == 1:
            raise SpoolCorruptError(DAMAGED)
        for before, after in pairwise(rows[:end]):
            if after.id <= before.id:
                self._disordered += 1
                self._doubtful |= {before.id, after.id}
        if end is not None and (self._disordered or self._wide):
            self._doubtful.update(self._groups.namesakes())
        self._row, self._next = given[-1].id, rows[-1]
        return given[:end]

    def _ahead(self) -> list[Row]:
        """Read from the next row on, and another behind it if there is one.

        Each time that a search went astray a longer stretch is read, so that a number
        high in the b-tree does not have the table read a thousand times.
        """
        rows = self._groups.scan(self._row, READ_RECORDS)
        if self._next is not None and rows[:1] != [self._next]:
            self._wide = 2 * max(self._wide, READ_RECORDS)
            rows = self._groups.scan(records=self._wide, begin=self._next)
        if not rows:
            raise SpoolCorruptError(DAMAGED)
        return rows

    def _end_in(self, rows: Sequence[Row]) -> int | None:
        """Count the rows that were there at the start, if the last one is among these."""
        for count, row in enumerate(rows, 1):
            if self._left is not None:
                self._left -= 1
            elif row == self._mark:
                self._left = self._behind
            if self._left == 0:
                return count
        return None

    def _take(self, row: Row) -> Iterable[tuple[Ref, Record]]:
        """Claim a row's slots; give its records that wait."""
        alive: list[tuple[int, int]] = []
        found: list[tuple[Ref, Record]] = []
        damaged = int(not row.sound and not row.entries)
        for place, (slot, generation, length) in enumerate(row.entries):
            state, key, is_done = self._arena.claim(slot, generation)
            if key is not None and row.sound:
                alive.append((slot, place))
                ref = ref_of(slot, generation)
                head = _open(row, place, key, length)
                origin = NO_ID if head is None else head.origin
                self._shares.hold(slot, origin, sealed_charge(length))
                if head is None:
                    self._corrupt.add(ref)
                else:
                    if not is_done:
                        self._ids.add(slot, head.origin, head.origin_id)
                    found.append((ref, head))
            elif state != State.SPENT:
                damaged += 1
        self._take_tombstones()
        self.damaged += damaged
        if alive:
            self._index.add(max(0, row.id), alive)  # below it only a damaged one is
        if damaged:
            self._index.keep(row.id)
        elif not alive:
            self._rubbish.append(row.id)
        return found

    def _take_tombstones(self) -> None:
        """Remember the ids of slots that were looked at, a few at a time."""
        for slot, tombstone in self._arena.tombstones:
            self._ids.add_tombstone(slot, tombstone)
        self._arena.tombstones.clear()

    def _settle(self, slots: int) -> None:
        """Look at the next slots that nobody has claimed; end after the last."""
        arena = self._arena
        arena.settle(slots)
        self._take_tombstones()
        if not arena.is_settled:
            return
        self._ids.sort()  # with those of what was forgotten meanwhile
        self.is_complete = True
        self.damaged += self._disordered or int(self._wide > 0)
        self._keep_doubtful()
        for origin, ids in self._early.items():
            for origin_id in ids:
                forget_id(self._ids, arena, origin, origin_id)
        self._early.clear()
        self.early = 0
        calls, self._calls = self._calls, []
        for call in calls:
            call()

    def _keep_doubtful(self) -> None:
        """Have no row deleted by a number that may be another's."""
        if not self._doubtful:
            return
        for number in self._doubtful:
            self._index.keep(number)
        dead = [row for row in self._rubbish if not self._index.is_kept(row)]
        self._rubbish.clear()
        self._rubbish.extend(dead)


async def pause() -> None:
    """Let everybody else have a turn."""
    await trio.lowlevel.checkpoint()


def forget_id(ids: Ids, arena: Arena, origin: bytes, origin_id: bytes) -> None:
    """Forget an id wherever it is remembered."""
    buried, living = ids.done(origin, origin_id)
    for slot in buried:
        arena.renew(slot)
    for slot in living:
        arena.mark_done(slot)


def _end(tail: Sequence[Row]) -> tuple[Row | None, int, int | None]:
    """Give what tells the end: a row, and how many lie behind it; or how many there are.

    A row without a salt may be like another one.
    """
    for behind, row in enumerate(reversed(tail)):
        if row.salt:
            return row, behind, None
    if len(tail) == TAIL_ROWS:
        raise SpoolCorruptError(DAMAGED)
    return None, 0, len(tail)


def _open(row: Row, place: int, key: Key, length: int) -> Record | None:
    box = row.heads[place * HEAD_LEN : (place + 1) * HEAD_LEN]
    try:
        head, content = open_head_untrusted(key, row.salt, box)
    except RemoteProtocolError:
        return None
    return head if sealed_len(content) == length else None
