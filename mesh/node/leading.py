# SPDX-License-Identifier: MIT
"""Leading records to their places: routed anew, each recipient for itself.

    given back   by a link, a connection      before all others of its queue, if its
                                              recipients still belong there
    astray       deferred and due, found at   behind all others of its place
                 a start, moved by a change
    parted       its recipients have several  divided (parting.py): read whole, its
                 places                       parts committed, then forgotten

All of it a little at a time, so that nothing waits for a long list: one `turn` gives
back what one link had, leads LEAD_MAX records, and begins one division; of these
COPIES_MAX octets, and one more, may be on their way to the disk.  Without room on the
disk what has parted is deferred, whole.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Final

import trio

from mesh.core.record import Record
from mesh.node.parking import Parking
from mesh.node.parting import COPIES_MAX, Parting
from mesh.node.spool import Ref, Spool
from mesh.node.waiting import Waiting

LEAD_MAX: Final = 64
"""Records whose heads are read at once."""


class Leading:
    """What is on its way to a queue; `turn` does the work and `parking` hears of it."""

    def __init__(
        self, spool: Spool, parting: Parting, waiting: Waiting, parking: Parking
    ) -> None:
        self._spool = spool
        self._parting = parting
        self._waiting = waiting
        self._parking = parking
        self._returned: deque[tuple[str, list[Ref]]] = deque()
        self._astray: deque[Ref] = deque()
        self._parted: deque[Ref] = deque()
        self._dividing = 0

    def give_back(self, destination: str, refs: Iterable[Ref]) -> None:
        """Put records back that were taken out of a queue, in their order."""
        self._returned.append((destination, list(refs)))
        self._parking.wake()

    def add(self, refs: Iterable[Ref]) -> None:
        """Lead these, in their order."""
        self._astray.extend(refs)
        self._parking.wake()

    @property
    def has_work(self) -> bool:
        """A turn would do something."""
        return bool(self._returned or self._astray or self._may_divide)

    @property
    def _may_divide(self) -> bool:
        return bool(self._parted) and self._dividing < COPIES_MAX

    async def turn(self) -> None:
        """Do a little of everything there is to do."""
        await trio.lowlevel.checkpoint()
        if self._returned:
            await self._put_back(*self._returned.popleft())
        count = min(LEAD_MAX, len(self._astray))
        for ref, head in await self._heads(
            [self._astray.popleft() for _ in range(count)]
        ):
            self.lead(ref, head)
        if self._may_divide:
            await self._divide(self._parted.popleft())

    async def _put_back(self, destination: str, refs: Sequence[Ref]) -> None:
        kept: list[Ref] = []
        for ref, head in await self._heads(refs):
            if list(self._parting.places_of(head)) == [destination]:
                kept.append(ref)
            else:
                self.lead(ref, head)
        queue = self._waiting.queue(destination)
        queue.ready.extendleft(reversed(kept))
        queue.wake()

    async def _heads(self, refs: Sequence[Ref]) -> list[tuple[Ref, Record]]:
        """Read heads; what does not open is in no list any more."""
        found: list[tuple[Ref, Record]] = []
        for ref, head in zip(refs, await self._spool.heads(refs), strict=True):
            if head is None:
                self._waiting.forget(ref)
            else:
                found.append((ref, head))
        return found

    def lead(self, ref: Ref, head: Record) -> None:
        """Bring a record to the place of all its recipients, or to its division."""
        places = list(self._parting.places_of(head))
        if len(places) == 1:
            self._waiting.enqueue(ref, places.pop(), head.origin)
        else:
            self._parted.append(ref)

    async def _divide(self, ref: Ref) -> None:
        """Put a record for each place in a record's place."""
        [record] = await self._spool.read([ref])
        if record is None:
            self._waiting.forget(ref)
            return
        parts = self._parting.parts(record)
        octets = len(parts) * len(record.content)
        self._dividing += octets
        self._spool.accept(parts, partial(self._divided, ref, octets))

    def _divided(self, ref: Ref, octets: int, parts: Sequence[Ref] | None) -> None:
        self._dividing -= octets
        if parts is None:
            self._waiting.defer(ref)
        else:
            for part in parts:
                self._waiting.inherit(part, ref)
            self._waiting.forget(ref)
            self._spool.forget(ref)
            self._astray.extend(parts)  # routes may have changed meanwhile
        self._parking.wake()
