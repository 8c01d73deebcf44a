# SPDX-License-Identifier: MIT
"""What one visit to a domain outside carries: the mail that was ready at its tick.

    ready at the tick    MESSAGES_MAX of it at most, taken out of the queue: this visit's
    came later           the next tick's, however long this visit lasts
    taken                on its way in a session, until `finished`
    left at the end      back to the head of the queue, in its order

    given time           PROGRESS_SECONDS without a message finished, VISIT_SECONDS in all
    hurried              takes no more; what is under way may end      core/turns.py
    cut off              what is under way: deferred

    large messages       as many as Cargo has room for, over all visits; one that has to
                         wait goes back, those behind it go

So no message chooses the instant at which it leaves.  Every record is in exactly one
place, also while a disk is read: what a cancelled step had in hand goes back.

A recipient that a node has come to serve meanwhile is not sent from here: a listed peer
is never reached in clear.  Nor is one that has come onto the refuse list: it bounces.
"""

from collections import deque
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Final

import trio

from mesh.core.record import Record
from mesh.core.reply import TRY_LATER, Reply
from mesh.core.retry import OUTSIDE
from mesh.node.qmgr import QueueManager
from mesh.node.routing import REFUSED
from mesh.node.spool import Ref

MESSAGES_MAX: Final = 100
"""Messages of one visit: some servers end longer sessions."""
VISIT_SECONDS: Final = 7200.0
"""For a whole visit, whatever progress it makes: 100 messages, each as slow as a good
server with a filter behind it."""
PROGRESS_SECONDS: Final = 1200.0
"""For one message with all that comes before it: RFC 5321 4.5.3.2 gives ten minutes to
the reply to a final dot; as much again is for the rest."""
LARGE_LEN: Final = 262_144
"""Octets of a message that needs room: two of each visit without are 32 MiB."""
CARGO_MAX: Final = 67_108_864
"""Octets of large messages on their way: three of the greatest size, each of which is in
memory twice, the second time with its dots doubled."""
KNOWN_MAX: Final = 10_000
"""Messages whose size is remembered while they wait for room."""
BATCH: Final = 64
"""Heads read at once when everything for a domain fails together."""


class Cargo:
    """The large messages that all visits have in memory."""

    def __init__(self) -> None:
        self.reading = trio.Lock()
        """Held while one is read: nobody knows before how large it is."""
        self.refused = False
        """There was no room for one, since this was last set to False."""
        self._octets = 0
        self._known: dict[Ref, int] = {}

    def has_room(self, ref: Ref) -> bool:
        """Say whether it may be worth the disk's while to read this one."""
        self.refused = self.refused or not self._fits(self._known.get(ref, 0))
        return self._fits(self._known.get(ref, 0))

    def load(self, ref: Ref, octets: int) -> bool:
        """Give room, if there is; alone, a message has room whatever its size."""
        if self._fits(octets):
            self._known.pop(ref, None)
            self._octets += octets
            return True
        if len(self._known) >= KNOWN_MAX:
            self._known.clear()
        self._known[ref] = octets
        self.refused = True
        return False

    def _fits(self, octets: int) -> bool:
        return not (octets and self._octets) or self._octets + octets <= CARGO_MAX

    def unload(self, octets: int) -> None:
        """Take room back."""
        self._octets -= octets


class Visit:
    """The mail of one visit, and what becomes of it."""

    def __init__(
        self,
        qmgr: QueueManager,
        destination: str,
        refuses: Callable[[str], bool],
        cargo: Cargo,
    ) -> None:
        """Take what is ready now."""
        self.destination = destination
        self._qmgr = qmgr
        self._refuses = refuses
        ready = qmgr.queue(destination).ready
        count = min(MESSAGES_MAX, len(ready))
        self._own: deque[Ref] = deque(ready.popleft() for _ in range(count))
        self.cargo = cargo
        self._loaded: deque[tuple[Ref, Record]] = deque()  # read, not taken yet
        self._waiting: list[Ref] = []  # for room
        self._flying: dict[Ref, Record] = {}
        self.begun = trio.current_time()
        self._is_hurried = False
        self.answered = False
        """A server said what becomes of one message at least."""
        self._last = self.begun + VISIT_SECONDS
        self.scope = trio.CancelScope()
        """Cancelled when its time is over."""
        self._progress()

    def _progress(self) -> None:
        deadline = trio.current_time() + PROGRESS_SECONDS
        self.scope.deadline = min(deadline, self._last)

    def hurry(self) -> None:
        """Take no more messages: others wait."""
        self._is_hurried = True

    @property
    def flying(self) -> int:
        """Messages that were taken and have not finished."""
        return len(self._flying)

    @property
    def is_laden(self) -> bool:
        """Something large is on its way."""
        held = [*self._flying.values(), *(record for _, record in self._loaded)]
        return any(_weight(record) for record in held)

    async def has_more(self) -> bool:
        """Say whether `take` would give something, having read it."""
        while self._own and not (self._loaded or self._is_hurried):
            if not self.cargo.has_room(self._own[0]):
                self._waiting.append(self._own.popleft())
                continue
            ref = self._own[0]  # in its place until it has another
            record = await self._read(ref)
            against = self._against(record) if record else None
            self._own.popleft()
            if record is None:
                self._qmgr.unreadable(ref)
            elif against is not None:
                self._turn_away(ref, record, against)
            elif self.cargo.load(ref, _weight(record)):
                self._loaded.append((ref, record))
            else:
                self._waiting.append(ref)
        return bool(self._loaded)

    async def take(self) -> tuple[Ref, Record] | None:
        """Take the next message that still may go this way; None: there is no more."""
        while await self.has_more():
            ref, record = self._loaded[0]
            # It was read before the connection, which may have taken its time.
            against = self._against(record)
            self._loaded.popleft()
            if against is None:
                self._flying[ref] = record
                return ref, record
            self.cargo.unload(_weight(record))
            self._turn_away(ref, record, against)
        return None

    async def _read(self, ref: Ref) -> Record | None:
        record = self._qmgr.spool.hot(ref)
        if record is None:
            async with self.cargo.reading:
                [record] = await self._qmgr.spool.read([ref])
        return record

    def _against(self, record: Record) -> Sequence[Reply] | None:
        """Say what speaks against this way for a message; None: nothing.

        It is replies, or none where somebody else serves its recipients by now.
        """
        refused = [self._refuses(to) for to in record.recipients]
        if any(refused):
            return [REFUSED if one else TRY_LATER for one in refused]
        if any(self._qmgr.router(to) != self.destination for to in record.recipients):
            return ()
        return None

    def _turn_away(self, ref: Ref, record: Record, replies: Sequence[Reply]) -> None:
        """Settle or route anew what is in no list of ours any more."""
        if replies:
            self._qmgr.settle(ref, record, replies, OUTSIDE)
        else:
            self._qmgr.lead_back([ref])

    def finished(
        self, ref: Ref, replies: Sequence[Reply], *, answered: bool = True
    ) -> None:
        """Settle one that was taken, a reply a recipient; answered: by its receiver."""
        if answered:
            self.answered = True
            self._progress()
        record = self._flying.pop(ref)
        self.cargo.unload(_weight(record))
        if self._qmgr.settle(ref, record, replies, OUTSIDE):
            self._qmgr.delivered(ref)

    async def fail_all(self, reply: Reply) -> None:
        """Settle everything that waits for the domain: it was tried, and failed.

        Cancelled, it leaves what it has not settled to `end`.
        """
        self._unload()
        ready = self._qmgr.queue(self.destination).ready
        self._own.extend(ready)
        ready.clear()
        while self._own:
            some = list(islice(self._own, BATCH))
            heads = await self._qmgr.spool.heads(some)
            for ref, head in zip(some, heads, strict=True):
                self._own.popleft()
                if head is None:
                    self._qmgr.unreadable(ref)
                    continue
                # Who is served elsewhere by now has not failed.
                replies = [
                    reply if self._qmgr.router(to) == self.destination else TRY_LATER
                    for to in head.recipients
                ]
                self._qmgr.settle(ref, head, replies, OUTSIDE)

    def give_up(self, reply: Reply) -> None:
        """Settle what is under way: its time is over."""
        for ref, record in list(self._flying.items()):
            replies = [reply] * len(record.recipients)
            self.finished(ref, replies, answered=False)

    def end(self) -> None:
        """Give back what was not sent."""
        self._unload()
        if self._own:
            self._qmgr.release(self.destination, self._own)
            self._own = deque()

    def _unload(self) -> None:
        """Have all that was not sent in one list, in its order."""
        held = [*self._flying.items(), *self._loaded]
        for _, record in held:
            self.cargo.unload(_weight(record))
        self._own.extendleft(reversed([*(ref for ref, _ in held), *self._waiting]))
        self._flying.clear()
        self._loaded.clear()
        self._waiting.clear()


def _weight(record: Record) -> int:
    """The octets for which a record needs room."""
    return len(record.content) if len(record.content) >= LARGE_LEN else 0
