# SPDX-License-Identifier: MIT
"""What becomes of a record when its receiver has answered, recipient by recipient.

    taken                          nothing more: forgotten by whoever handed it over
    refused for now                deferred; after 5 days and 20 attempts as for ever
    refused for ever               a bounce to a reverse-path of this node, or a count

    some of them this, some that   a record of its own for those still to be tried; the
                                   old one is forgotten when that is on the disk

A bounce goes to addresses of this node's remailers only: anywhere else it would be
mail from us that a forged reverse-path addressed.  It and what remains of its message
are committed together, before the message is forgotten: nothing accepted is lost
without one of them, or a count in `dropped`.  Without room on the disk all is deferred.

Of a record its head is enough; what else is needed is read, at a `turn`.  Trio thread
only.
"""

from collections import deque
from collections.abc import Callable, Sequence

from mesh.core.bounce import Failure, judge
from mesh.core.record import Record
from mesh.core.reply import Reply
from mesh.core.retry import Patience, is_given_up
from mesh.node.parking import Parking
from mesh.node.parting import Parting, Router
from mesh.node.reporter import Reporter
from mesh.node.routing import LOCAL, UNROUTED
from mesh.node.spool import Ref, Spool
from mesh.node.waiting import Waiting

_Partly = tuple[
    Ref, Sequence[str], Sequence[Failure], Patience, Callable[[], None] | None
]


class Settling:
    """Judges replies, and puts what follows in a record's place."""

    def __init__(
        self,
        spool: Spool,
        router: Router,
        parting: Parting,
        reporter: Reporter,
        waiting: Waiting,
        parking: Parking,
    ) -> None:
        """`parking` hears that a `turn` has something to do."""
        self._spool = spool
        self._router = router
        self._parting = parting
        self._reporter = reporter
        self._waiting = waiting
        self._parking = parking
        self._partly: deque[_Partly] = deque()
        self.bounced = 0
        """Recipients whose failure was reported, since the start."""
        self.dropped = 0
        """Recipients whose failure nobody could be told of."""

    @property
    def unread(self) -> list[Ref]:
        """What is to be read before something can take its place."""
        return [ref for ref, *_ in self._partly]

    @property
    def has_work(self) -> bool:
        """A turn would do something."""
        return bool(self._partly)

    def delivered(self, ref: Ref, durable: Callable[[], None] | None = None) -> None:
        """Forget a record for good; `durable` is called when no disk has its key."""
        self._waiting.forget(ref)
        self._spool.forget(ref, done=durable)

    def defer(self, ref: Ref, patience: Patience) -> None:
        """Try this record again after a while, routed anew."""
        self._waiting.defer(ref, patience)
        self._parking.wake()

    async def turn(self) -> None:
        """Read one of these, and go on with it."""
        ref, left, failures, patience, durable = self._partly.popleft()
        [record] = await self._spool.read([ref])
        if record is None:
            self._waiting.forget(ref)
        else:
            self.replace(ref, record, left, failures, patience, durable)

    def settle(
        self,
        ref: Ref,
        record: Record,
        replies: Sequence[Reply],
        patience: Patience,
        durable: Callable[[], None] | None = None,
    ) -> bool:
        """Draw the consequence of a receiver's replies, one a recipient.

        True: all were taken, and the caller forgets it.  `durable` is called when a
        record of which something was taken is forgotten for good: its receiver need
        not know it any more.

        The caller has it in no list any more: after a bug in here it is deferred.
        """
        try:
            return self._settle(ref, record, replies, patience, durable)
        except Exception:  # its connection ends by it, and would take it along
            self.defer(ref, patience)
            raise

    def _settle(
        self,
        ref: Ref,
        record: Record,
        replies: Sequence[Reply],
        patience: Patience,
        durable: Callable[[], None] | None,
    ) -> bool:
        for reply in replies:  # not by `all`, which costs each message a generator
            if not reply.positive:
                break
        else:
            return True
        attempts = self._waiting.attempts.get(ref, 0) + 1
        too_old = is_given_up(attempts, self._spool.running_seconds - record.accepted)
        failures, left = judge(record.recipients, replies, too_old=too_old)
        if not any(reply.positive for reply in replies):
            durable = None
        if len(left) == len(record.recipients):
            self.defer(ref, patience)
        elif left and not record.content:
            self._partly.append((ref, left, failures, patience, durable))
            self._parking.wake()
        else:
            self.replace(ref, record, left, failures, patience, durable)
        return False

    def replace(
        self,
        ref: Ref,
        record: Record,
        left: Sequence[str],
        failures: Sequence[Failure],
        patience: Patience,
        durable: Callable[[], None] | None = None,
    ) -> None:
        """Put in a record's place what is still to be tried and what is to be told."""
        rest = [self._parting.rest(record, left, record.destination) for _ in left[:1]]
        place = self._router(record.reverse_path) or UNROUTED
        reports = [
            self._reporter.report(record, failures, place, self._spool.running_seconds)
            for _ in failures[:1]
            if place.startswith(LOCAL)
        ]

        def committed(refs: Sequence[Ref] | None) -> None:
            if refs is None:
                self.defer(ref, patience)
                return
            if reports:
                self.bounced += len(failures)
                self._waiting.enqueue(refs[-1], reports[0].destination)
            else:
                self.dropped += len(failures)
            for again in refs[: len(rest)]:
                self._waiting.inherit(again, ref)
                self.defer(again, patience)
            self.delivered(ref, durable)

        if rest or reports:
            self._spool.accept([*rest, *reports], committed)
        else:
            committed(())
