# SPDX-License-Identifier: MIT
"""What a start finds in the spool: who is still waiting, what is rubbish, what is damaged.

First every row that was there at the start, oldest first, a head a record:

    the slot                         the record
    opens, same generation           waits, if its head opens; the slot is HELD
    opens, greater generation        is delivered; a row of such alone is rubbish
    anything else                    is damaged, and its row is kept for the operator
    its row's number is damaged      is damaged when it is asked for; counted once more

then every slot that no row has claimed: it is free, or a tombstone, or damaged.  Only
then is it known which slots of the old arena are free, and which ids are known.

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
the crash before it left.  A row is deleted only when each of its records moved on.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Final

import trio

from mesh.core.crypto import Key
from mesh.core.record import HEAD_LEN, NO_ID, Record, open_head_untrusted, sealed_len
from mesh.errors import RemoteProtocolError
from mesh.node.arena import Arena, State
from mesh.node.groups import BEFORE_ALL, Groups, Row
from mesh.node.ids import Ids
from mesh.node.index import Index, Ref, ref_of, slot_of
from mesh.node.parking import Parking
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

        A row whose number is damaged is out of order: then as much is counted, for what
        else cannot be found by its number nobody knows.  The last row of a stretch is
        read again with the next one, for it to be seen in its order.
        """
        rows = self._groups.scan(self._row, READ_RECORDS)
        if len(rows) > 1 and rows[-1].id < self.last_row:
            del rows[-1]
        self._disordered += sum(b.id <= a.id for a, b in pairwise(rows))
        old = [row for row in rows if row.id <= self.last_row]
        if not old:
            return old
        if old[-1].id <= self._row:  # no way on from here
            self._disordered += 1
            return []
        self._row = old[-1].id
        return old

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
            self._index.add(row.id, alive)
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
        self.damaged += self._disordered
        for origin, ids in self._early.items():
            for origin_id in ids:
                forget_id(self._ids, arena, origin, origin_id)
        self._early.clear()
        self.early = 0
        calls, self._calls = self._calls, []
        for call in calls:
            call()


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


def _open(row: Row, place: int, key: Key, length: int) -> Record | None:
    box = row.heads[place * HEAD_LEN : (place + 1) * HEAD_LEN]
    try:
        head, content = open_head_untrusted(key, row.salt, box)
    except RemoteProtocolError:
        return None
    return head if sealed_len(content) == length else None
