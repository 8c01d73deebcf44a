# SPDX-License-Identifier: MIT
"""What one visit to a domain outside carries: the mail that was ready at its tick.

    ready at the tick    MESSAGES_MAX of it at most, taken out of the queue: this visit's
    came later           the next tick's, however long this visit lasts
    taken                on its way in a session, until `finished`
    left at the end      back to the head of the queue, in its order

    given time           PROGRESS_SECONDS without a message finished, VISIT_SECONDS in all
    hurried              takes no more; what is under way may end      core/turns.py
    cut off              what is under way: deferred

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
BATCH: Final = 64
"""Heads read at once when everything for a domain fails together."""


class Visit:
    """The mail of one visit, and what becomes of it."""

    def __init__(
        self, qmgr: QueueManager, destination: str, refuses: Callable[[str], bool]
    ) -> None:
        """Take what is ready now."""
        self.destination = destination
        self._qmgr = qmgr
        self._refuses = refuses
        ready = qmgr.queue(destination).ready
        count = min(MESSAGES_MAX, len(ready))
        self._own: deque[Ref] = deque(ready.popleft() for _ in range(count))
        self._flying: dict[Ref, Record] = {}
        self._is_hurried = False
        self.answered = False
        """A server said what becomes of one message at least."""
        self._last = trio.current_time() + VISIT_SECONDS
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

    async def take(self) -> tuple[Ref, Record] | None:
        """Take the next message that still may go this way; None: there is no more."""
        while self._own and not self._is_hurried:
            record = self._qmgr.spool.hot(self._own[0])
            if record is None:
                [record] = await self._qmgr.spool.read([self._own[0]])
            ref = self._own.popleft()
            if record is None:
                self._qmgr.unreadable(ref)
            elif self._may_go(ref, record):
                self._flying[ref] = record
                return ref, record
        return None

    def _may_go(self, ref: Ref, record: Record) -> bool:
        refused = [self._refuses(to) for to in record.recipients]
        if any(refused):
            replies = [REFUSED if one else TRY_LATER for one in refused]
            self._qmgr.settle(ref, record, replies, OUTSIDE)
            return False
        if any(self._qmgr.router(to) != self.destination for to in record.recipients):
            self._qmgr.lead_back([ref])
            return False
        return True

    def finished(
        self, ref: Ref, replies: Sequence[Reply], *, answered: bool = True
    ) -> None:
        """Settle one that was taken, a reply a recipient; answered: by its receiver."""
        if answered:
            self.answered = True
            self._progress()
        record = self._flying.pop(ref)
        if self._qmgr.settle(ref, record, replies, OUTSIDE):
            self._qmgr.delivered(ref)

    async def fail_all(self, reply: Reply) -> None:
        """Settle everything that waits for the domain: it was tried, and failed.

        Cancelled, it leaves what it has not settled to `end`.
        """
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
        left = [*self._flying, *self._own]
        self._flying.clear()
        self._own.clear()
        if left:
            self._qmgr.release(self.destination, left)
