# SPDX-License-Identifier: MIT
"""What a start finds in the spool: who is still waiting, what is rubbish, what is damaged.

`claim`, fast, reads of each row the slot numbers only:

    the slot                         the record
    opens, same generation, FREE     waits; the slot is HELD
    opens, greater generation        is delivered; a row of such alone is rubbish
    anything else                    is damaged, and its row is kept for the operator

`heads`, a head a record, then tells who waits for whom; a head that does not open is
damage, too.  A row is deleted only when each of its records moved on.  Blocking, and
both before the writer starts.
"""

from collections import deque
from collections.abc import Iterable, Iterator

from mesh.core.record import HEAD_LEN, Record, open_head_untrusted, sealed_len
from mesh.core.slot import Tombstone
from mesh.errors import LocalProtocolError, RemoteProtocolError
from mesh.node.arena import Arena, State
from mesh.node.groups import Groups, Row
from mesh.node.ids import Ids
from mesh.node.index import Index, Ref, ref_of


class Recovery:
    """The two passes over what is there."""

    def __init__(
        self, arena: Arena, groups: Groups, index: Index, ids: Ids, corrupt: set[Ref]
    ) -> None:
        self._arena = arena
        self._groups = groups
        self._index = index
        self._ids = ids
        self._corrupt = corrupt
        self._unread: deque[int] = deque()
        self.damaged = 0
        """Records that no slot stands for."""

    @property
    def is_unfinished(self) -> bool:
        """Somebody waits whom nobody knows yet."""
        return bool(self._unread)

    def claim(self, tombstones: Iterable[tuple[int, Tombstone]]) -> list[int]:
        """Fill index and ids, free what nobody claims; give the rows that are rubbish."""
        for slot, tombstone in tombstones:
            self._ids.add_tombstone(slot, tombstone)
        self._ids.sort()
        rubbish = [row.id for row in self._groups.scan() if self._claim(row)]
        self._arena.claimed()
        return rubbish

    def _claim(self, row: Row) -> bool:
        alive: list[tuple[int, int]] = []
        damaged = int(not row.sound and not row.entries)
        for place, (slot, generation, _) in enumerate(row.entries):
            state = self._arena.claim(slot, generation)
            if state == State.HELD and row.sound:
                alive.append((slot, place))
            elif state != State.SPENT:
                damaged += 1
        self.damaged += damaged
        if alive:
            self._index.add(row.id, alive)
            self._unread.append(row.id)
        if damaged:
            self._index.keep(row.id)
        return not alive and not damaged

    def heads(self) -> Iterator[tuple[Ref, Record]]:
        """Open the heads of all that wait, oldest first."""
        while self._unread:
            row = self._groups.row(self._unread.popleft())
            if row is None:
                raise LocalProtocolError("a row was deleted before it was read")
            for place, (slot, generation, length) in enumerate(row.entries):
                if not self._index.is_at(slot, row.id, place):
                    continue
                ref = ref_of(slot, generation)
                head = self._open(row, place, slot, length)
                if head is None:
                    self._corrupt.add(ref)
                    continue
                self._ids.add(slot, head.origin, head.origin_id)
                yield ref, head

    def _open(self, row: Row, place: int, slot: int, length: int) -> Record | None:
        box = row.heads[place * HEAD_LEN : (place + 1) * HEAD_LEN]
        try:
            head, content = open_head_untrusted(self._arena.key(slot), row.salt, box)
        except RemoteProtocolError:
            return None
        return head if sealed_len(content) == length else None
