# SPDX-License-Identifier: MIT
"""The queue manager: what waits, for whom, and what becomes of it.

    accept   a message -> one record a destination, one commit, then the answer
    queues   a destination -> the records that may go now, oldest first; outside: those
             that the pool let go on its ticks (core/pool.py)
    outcome  delivered -> forgotten     link gone -> released
             refused -> deferred, a bounce, a count (settling.py)

States of a record as everybody else sees them (what lies on the disk: spool.py):

    state      in memory                     after a crash
    incoming   with the spool, not committed  was never accepted: no 250 went out
    active     in its queue or being sent     active again, sent again
    deferred   in the heap until its time     active again
    corrupt    counted, in no queue           counted again

Destinations are routing.py's.  Mail waits where nobody takes it.  Whatever comes back is
routed anew, each recipient for itself (leading.py): what a start finds, what was
deferred, what a link or a connection gave back; and, when addresses move between peers,
what waits for those who lost some, or for nobody.  A record whose recipients have parted is divided
(parting.py).  Hourly what has waited for 5 days is counted as tried.

All of this runs on the Trio thread.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final

import trio

from mesh.core.bounce import Failure
from mesh.core.crypto import Entropy, Key
from mesh.core.pool import Manner, Pool
from mesh.core.record import NO_ID, Record, split_recipients
from mesh.core.reply import Reply
from mesh.core.retry import GIVE_UP_SECONDS, INSIDE, Patience, is_given_up
from mesh.node.guard import Guard
from mesh.node.leading import LEAD_MAX, Leading
from mesh.node.parking import Parking
from mesh.node.parting import COPIES_MAX, Parting, Router
from mesh.node.reporter import Reporter
from mesh.node.routing import EXIT, LOCAL, UNROUTED
from mesh.node.settling import Settling
from mesh.node.spool import Ref, Spool
from mesh.node.waiting import Queue, Waiting

__all__ = ["COPIES_MAX", "Queue", "QueueManager", "Router"]

SWEEP_SECONDS: Final = 3600.0
"""Between two looks for what waits too long: 20 of them are less than a day, so that
no id is offered to a peer after 7 days (`mesh help protocol`, 4)."""

STORED: Final = Reply(250, "ok")
FULL: Final = Reply(452, "no room, try later")
MANY: Final = Reply(452, "too many places for so large a message")
NOBODY: Final = Reply(451, "4.4.7 its node took nothing for so long")


def everywhere(_: str) -> bool:
    """Say of every place that its mail may be for another one now."""
    return True


class QueueManager:
    """Owns every record between its commit and its end."""

    def __init__(
        self,
        spool: Spool,
        router: Router,
        entropy: Entropy,
        *,
        host: str = "localhost",
        alias: Callable[[str], str] = str,
        key: Key | None = None,
        manner: Manner | None = None,
    ) -> None:
        """`host` is how bounces call this node; for `alias` see routing.py.

        `key` makes the ids of parts; without one they are others after each start.
        `manner` is how the pool mixes what goes outside.
        """
        self.alias = alias
        self.spool = spool
        self.guard = Guard()
        """Of all who are called back when a record may go, or was stored."""
        self.router = router
        self._entropy = entropy
        self._parking = Parking()
        self._parting = Parting(router, key or entropy.key(), spool.knows)
        self._waiting = Waiting(entropy, spool.is_of_before, manner)
        self._leading = Leading(spool, self._parting, self._waiting, self._parking)
        self._settling = Settling(
            spool, router, self._parting, Reporter(host, entropy),
            self._waiting, self._parking,
        )  # fmt: skip
        self._changes = 0
        self._deferred = self._waiting.deferred

    def queue(self, destination: str) -> Queue:
        """Give the queue of a destination, made when first asked for."""
        return self._waiting.queue(destination)

    def exits(self) -> list[str]:
        """Name the places outside for which something waits; drop the empty ones."""
        return self._waiting.exits()

    @property
    def pool(self) -> Pool:
        """What waits for a tick before it may go outside."""
        return self._waiting.pool

    def depart(self, *, hold: bool = False) -> Iterator[None]:
        """Let the pool tick; to be taken to its end, with turns of the loop between."""
        return self._waiting.depart(hold=hold)

    def stand(self, seconds: float) -> None:
        """Let no time pass in the pool for so long."""
        self._waiting.stand(seconds)

    def enqueue(self, ref: Ref, destination: str, source: bytes = b"") -> None:
        """Put a record behind all others that go there."""
        self._waiting.enqueue(ref, destination, source)

    # in

    def recover(self) -> None:
        """Route what the spool finds at its start: now or, if it is large, by and by."""
        if self.spool.is_large:
            self._waiting.reading = True
            self.spool.when_indexed(self._waiting.all_read)
            self.spool.recover_beside(self._leading.lead, self._breathe)
            return
        for ref, head in self.spool.recovered():
            self._leading.lead(ref, head)

    def _breathe(self) -> None:
        """Some of what is found beside the running node was led to its place."""
        self._waiting.let_up()
        if self._leading.has_work:
            self._parking.wake()

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
        changes = self._changes
        places = self._parting.places(map(self.alias, recipients))
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
        if not self.spool.has_room(origin, [len(content)] * len(records)):
            answer(FULL)
            return

        def committed(refs: Sequence[Ref] | None) -> None:
            if refs is None:
                answer(FULL)
                return
            answer(STORED)
            if changes != self._changes:
                self.lead_back(refs)
                return
            for ref, record in zip(refs, records, strict=True):
                self.enqueue(ref, record.destination, record.origin)

        self.spool.accept(records, committed)

    # out

    def may_lie_there(self, ref: Ref) -> bool:
        """Say whether this record may have been delivered without our knowing."""
        return self._waiting.is_doubtful(ref)

    def doubt(self, ref: Ref) -> None:
        """Note that a delivery failed and may have succeeded all the same."""
        self._waiting.doubtful.add(ref)

    def delivered(self, ref: Ref, durable: Callable[[], None] | None = None) -> None:
        """Forget a record for good; `durable` is called when no disk has its key."""
        self._settling.delivered(ref, durable)

    def release(self, destination: str, refs: Iterable[Ref]) -> None:
        """Put back, in their order, records whose link or connection ended."""
        self._leading.give_back(destination, refs)

    def lead_back(self, refs: Iterable[Ref]) -> None:
        """Bring records to their queues, routed anew."""
        self._leading.add(refs)

    def defer(self, ref: Ref, patience: Patience = INSIDE) -> None:
        """Try this record again after a while, routed anew."""
        self._settling.defer(ref, patience)

    def settle(
        self,
        ref: Ref,
        record: Record,
        replies: Sequence[Reply],
        patience: Patience = INSIDE,
        durable: Callable[[], None] | None = None,
    ) -> bool:
        """Draw the consequence of a receiver's replies, one a recipient (settling.py).

        True: all were taken and the caller says `delivered`.
        """
        return self._settling.settle(ref, record, replies, patience, durable)

    def unreadable(self, ref: Ref) -> None:
        """Drop a record that the spool set aside as corrupt from every list."""
        self._waiting.forget(ref)

    # what the operator asks

    @property
    def queues(self) -> Mapping[str, Queue]:
        """All queues by destination, to be counted."""
        return self._waiting.queues

    @property
    def bounced(self) -> int:
        """Recipients whose failure was reported, since the start."""
        return self._settling.bounced

    @property
    def dropped(self) -> int:
        """Recipients whose failure nobody could be told of."""
        return self._settling.dropped

    @property
    def deferred(self) -> int:
        """Records that wait for their next try."""
        return len(self._deferred)

    def take_deferred(self) -> list[Ref]:
        """Take all that is deferred: the caller leads it back or drops it."""
        return self._waiting.take_deferred()

    # routes and time

    def reroute(
        self,
        known: Callable[[str], bool],
        *,
        changed: bool,
        moved: Callable[[str], bool] = everywhere,
    ) -> None:
        """Route anew what waits where nobody is.

        With `changed` what is not for a remailer here, from the places of which `moved`
        says that their mail may be for others now: an address may have moved from one
        peer to another, and a listed peer is never reached in clear.  `known` says
        whether a place is one of ours or of a listed peer.
        """
        self._changes += changed
        for destination, queue in self.queues.items():
            is_ours = destination.startswith(LOCAL)
            is_nobodys = destination == UNROUTED or destination.startswith(EXIT)
            is_moved = changed and not is_ours and moved(destination)
            if is_moved or not (is_nobodys or known(destination)):
                for refs in (queue.ready, queue.newer):
                    self.lead_back(refs)
                    refs.clear()
        if changed and moved(EXIT):
            self.lead_back(self._waiting.take_pool())

    async def run(self) -> None:
        """Bring what is deferred or astray back to its queue, for ever."""
        sweep = trio.current_time() + SWEEP_SECONDS
        while True:
            now = trio.current_time()
            if now >= sweep:
                sweep = now + SWEEP_SECONDS
                await self._sweep()
            self.lead_back(self._waiting.take_due(now))
            if self._settling.has_work:
                await self._settling.turn()
                continue
            if self._leading.has_work:
                await self._leading.turn()
                continue
            with trio.move_on_at(min(self._waiting.due, sweep)):
                await self._parking.park()

    async def _sweep(self) -> None:
        """Count as tried what has waited too long for a link; give up what is old."""
        for destination, queue in list(self.queues.items()):
            if destination.startswith((LOCAL, EXIT)):
                continue  # each of these is tried, and settled by what came of it
            kept: list[Ref] = []
            changes = self._changes
            while queue.ready:
                refs = [
                    queue.ready.popleft()
                    for _ in range(min(LEAD_MAX, len(queue.ready)))
                ]
                if not await self._sweep_some(refs, kept):
                    break
            if changes == self._changes:
                queue.ready.extendleft(reversed(kept))
                queue.wake()
            else:
                self.lead_back(kept)

    async def _sweep_some(self, refs: Sequence[Ref], kept: list[Ref]) -> bool:
        """Sweep the oldest; False when one of them is young, as all behind it are."""
        is_old = True
        await trio.lowlevel.checkpoint()
        for ref, head in zip(refs, await self.spool.heads(refs), strict=True):
            if head is None:
                self.unreadable(ref)
                continue
            age = self.spool.running_seconds - head.accepted
            is_old = is_old and age >= GIVE_UP_SECONDS
            attempts = self._waiting.attempts.get(ref, 0) + 1
            if is_given_up(attempts, age):
                failures = [Failure(to, NOBODY) for to in head.recipients]
                self._settling.replace(ref, head, (), failures, INSIDE)
                continue
            if is_old:
                self._waiting.attempts[ref] = attempts
            kept.append(ref)
        return is_old
