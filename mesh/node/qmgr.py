# SPDX-License-Identifier: MIT
"""The queue manager: what waits, for whom, and what becomes of it.

    accept   a message -> one record a destination, one commit, then the answer
    queues   a destination -> the records that may go now, oldest first
    outcome  delivered -> forgotten; refused for now -> deferred; link gone -> released

States of a record as everybody else sees them (what lies on the disk: spool.py):

    state      in memory                     after a crash
    incoming   with the spool, not committed  was never accepted: no 250 went out
    active     in its queue or being sent     active again, sent again
    deferred   in the heap until its time     active again
    corrupt    counted, in no queue           counted again

A destination is a peer's name, `local:N` for the N-th remailer of node.toml, or
UNROUTED: an address whose node left or that two nodes claim.  Mail there waits; each
change of the peers routes it anew.  Nothing accepted is dropped here, whatever a
receiver says: what cannot go is deferred.

All of this runs on the Trio thread and nothing blocks.
"""

import heapq
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Final, Protocol

import trio

from mesh.core.crypto import Entropy
from mesh.core.record import NO_ID, Record, split_recipients
from mesh.core.reply import Reply
from mesh.core.retry import retry_delay
from mesh.node.parking import Parking
from mesh.node.spool import Ref, Spool

UNROUTED: Final = "?"
COPIES_MAX: Final = 67_108_864
"""Octets that one message may become through its many destinations: three of the
greatest size; a longer list of recipients is for several messages."""
REROUTE_BATCH: Final = 64
"""Records read at once when the peers have changed."""

STORED: Final = Reply(250, "ok")
FULL: Final = Reply(452, "no room, try later")
MANY: Final = Reply(452, "too many places for so large a message")


class Router(Protocol):
    """Who takes mail for an address: the peers' directory."""

    def __call__(self, address: str) -> str | None:
        """Name the destination; None: no node serves it."""


class Queue:
    """What may go to one destination now."""

    __slots__ = ("ready", "wake")

    def __init__(self) -> None:
        self.ready: deque[Ref] = deque()
        self.wake: Callable[[], None] = lambda: None
        """Called when something was added; set by the queue's one worker."""


class QueueManager:
    """Owns every record between its commit and its end."""

    def __init__(self, spool: Spool, router: Router, entropy: Entropy) -> None:
        self.spool = spool
        self.router = router
        self._entropy = entropy
        self._queues: dict[str, Queue] = {}
        self._attempts: dict[Ref, int] = {}
        self._deferred: list[tuple[float, Ref]] = []
        self._parking = Parking()
        self._recovered: set[Ref] = set()
        self._astray: deque[Ref] = deque()

    def queue(self, destination: str) -> Queue:
        """Give the queue of a destination, made when first asked for."""
        queue = self._queues.get(destination)
        if queue is None:
            queue = self._queues[destination] = Queue()
        return queue

    # in

    def recover(self) -> None:
        """Route what the spool found at its start."""
        for ref, head in self.spool.recovered():
            self._recovered.add(ref)
            self.queue(self._route(head)).ready.append(ref)

    def accept(
        self,
        *,
        reverse_path: str,
        recipients: Sequence[str],
        content: bytes,
        answer: Callable[[Reply], None],
        origin: bytes = NO_ID,
        origin_id: bytes = NO_ID,
    ) -> None:
        """Store a message; `answer` hears the reply when the commit is on the disk.

        The reply comes on the Trio thread, from inside this call only when nothing was
        stored.
        """
        places: dict[str, list[str]] = {}
        for recipient in recipients:
            place = self.router(recipient) or UNROUTED
            places.setdefault(place, []).append(recipient)
        records = [
            Record(
                id=self._entropy.octets(16),
                origin=origin,
                origin_id=origin_id,
                destination=place,
                reverse_path=reverse_path,
                recipients=part,
                accepted=self.spool.running_seconds,
                content=content,
            )
            for place, theirs in places.items()
            for part in split_recipients(reverse_path, theirs, place)
        ]
        if len(records) > 1 and len(records) * len(content) > COPIES_MAX:
            answer(MANY)
            return

        def committed(refs: Sequence[Ref] | None) -> None:
            if refs is None:
                answer(FULL)
                return
            answer(STORED)
            for ref, record in zip(refs, records, strict=True):
                queue = self.queue(record.destination)
                queue.ready.append(ref)
                queue.wake()

        self.spool.accept(records, committed)

    # out

    def was_recovered(self, ref: Ref) -> bool:
        """Say whether this record may have been delivered before a crash."""
        return ref in self._recovered

    def delivered(self, ref: Ref, durable: Callable[[], None] | None = None) -> None:
        """Forget a record for good; `durable` is called when no disk has its key."""
        self._attempts.pop(ref, None)
        self._recovered.discard(ref)
        self.spool.forget(ref, done=durable)

    def release(self, destination: str, refs: Iterable[Ref]) -> None:
        """Put back, in their order, records whose link or connection ended."""
        queue = self.queue(destination)
        queue.ready.extendleft(reversed(list(refs)))
        queue.wake()

    def defer(self, ref: Ref) -> None:
        """Try this record again after a while, routed anew."""
        attempts = self._attempts[ref] = self._attempts.get(ref, 0) + 1
        due = trio.current_time() + retry_delay(attempts, self._entropy)
        heapq.heappush(self._deferred, (due, ref))
        self._parking.wake()

    def settle(self, ref: Ref, record: Record, replies: Sequence[Reply]) -> bool:
        """Draw the consequence of a receiver's replies, one a recipient.

        True: all were taken and the caller says `delivered`.  When only some were, the
        others become a record of their own, and the old one is forgotten once that is
        on the disk.
        """
        left = [
            recipient
            for recipient, reply in zip(record.recipients, replies, strict=True)
            if not reply.positive
        ]
        if not left:
            return True
        if len(left) == len(record.recipients):
            self.defer(ref)
            return False
        rest = replace(record, id=self._entropy.octets(16), recipients=tuple(left))

        def committed(refs: Sequence[Ref] | None) -> None:
            if refs is None:
                self.defer(ref)
                return
            self.defer(refs[0])
            self.delivered(ref)

        self.spool.accept([rest], committed)
        return False

    def unreadable(self, ref: Ref) -> None:
        """Drop a record that the spool set aside as corrupt from every list."""
        self._attempts.pop(ref, None)
        self._recovered.discard(ref)

    # what the operator asks

    @property
    def queues(self) -> Mapping[str, Queue]:
        """All queues by destination, to be counted."""
        return self._queues

    @property
    def deferred(self) -> int:
        """Records that wait for their next try."""
        return len(self._deferred)

    def take_deferred(self) -> list[Ref]:
        """Take all that is deferred: the caller leads it back or drops it."""
        refs = [ref for _, ref in self._deferred]
        self._deferred.clear()
        return refs

    def lead_back(self, refs: Iterable[Ref]) -> None:
        """Bring records to their queues, routed anew."""
        self._astray.extend(refs)
        self._parking.wake()

    # routes and time

    def _route(self, record: Record) -> str:
        """Route by the first recipient: all of a record's go to one place."""
        return self.router(record.recipients[0]) or UNROUTED

    def reroute(self, known: Callable[[str], bool], *, changed: bool) -> None:
        """Route anew what waits where nobody is; with `changed` routes also the unrouted.

        `known` says whether a place is one of ours or of a listed peer.
        """
        for destination, queue in self._queues.items():
            if not queue.ready:
                continue
            if changed if destination == UNROUTED else not known(destination):
                self._astray.extend(queue.ready)
                queue.ready.clear()
        self._parking.wake()

    async def run(self) -> None:
        """Bring deferred and stray records back to their queues, for ever."""
        while True:
            now = trio.current_time()
            while self._deferred and self._deferred[0][0] <= now:
                self._astray.append(heapq.heappop(self._deferred)[1])
            if self._astray:
                await self._lead_back()
            due = self._deferred[0][0] if self._deferred else float("inf")
            with trio.move_on_at(due):
                await self._parking.park()

    async def _lead_back(self) -> None:
        while self._astray:
            count = min(REROUTE_BATCH, len(self._astray))
            refs = [self._astray.popleft() for _ in range(count)]
            for ref, head in zip(refs, await self.spool.heads(refs), strict=True):
                if head is None:
                    self.unreadable(ref)
                    continue
                queue = self.queue(self._route(head))
                queue.ready.append(ref)
                queue.wake()
