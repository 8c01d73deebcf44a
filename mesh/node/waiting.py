# SPDX-License-Identifier: MIT
"""What waits, in memory: a queue a place, what is deferred, what is known of each record.

    queues     place -> the records that may go there now, oldest first
    pool       records for places outside: on its ticks some go into their queues
    deferred   a heap by the time of the next try
    attempts   how often a record was tried; none yet: no entry
    doubtful   records that may have been delivered without our knowing, beside all
               that were there before this process was
    newer      of a place, while the spool is still being read: what was accepted since
               the start waits here as long as older records are in the queue

A record is in one list or with one worker, never in two.  A queue for a place outside
is dropped when it is empty and nobody has in hand what may go back into it: a list that
is no queue any more would hide its records until the next start.  Trio thread only.
"""

import heapq
from collections import deque
from collections.abc import Callable, Iterator
from typing import Final

import trio

from mesh.core.crypto import Entropy
from mesh.core.pool import Manner, Pool
from mesh.core.retry import INSIDE, Patience, retry_delay
from mesh.node.index import Ref
from mesh.node.routing import EXIT

NEVER: Final = float("inf")


class Queue:
    """What may go to one destination now."""

    __slots__ = ("hands", "newer", "own", "ready", "wake")

    def __init__(self) -> None:
        self.ready: deque[Ref] = deque()
        self.newer: deque[Ref] = deque()
        self.wake: Callable[[], None] = lambda: None
        """Called when something was added; set by the queue's one worker."""
        self.own = b""
        """Who takes it out; what he brought for himself (a heartbeat) goes first."""
        self.hands = 0
        """Who may put back what they have taken out, straight into `ready`."""


class Waiting:
    """The lists, and what is known of the records in them."""

    def __init__(
        self,
        entropy: Entropy,
        is_of_before: Callable[[Ref], bool] = lambda _: False,
        manner: Manner | None = None,
    ) -> None:
        """`is_of_before` says whether a record was there before this process was.

        `manner` is how the pool mixes what goes outside.
        """
        self._is_of_before = is_of_before
        self.reading = False
        """Older records than those in the queues may come."""
        self._behind: set[Queue] = set()
        self.queues: dict[str, Queue] = {}
        self.pool = Pool(manner or Manner(), entropy)
        self._since: dict[Ref, float] = {}  # of those that are routed anew
        self._stood = 0.0
        self.deferred: list[tuple[float, Ref]] = []
        self.attempts: dict[Ref, int] = {}
        self.doubtful: set[Ref] = set()
        self._entropy = entropy

    def queue(self, destination: str) -> Queue:
        """Give the queue of a destination, made when first asked for."""
        queue = self.queues.get(destination)
        if queue is None:
            queue = self.queues[destination] = Queue()
        return queue

    def enqueue(self, ref: Ref, destination: str, source: bytes = b"") -> None:
        """Put a record behind all others that go there, or into the pool.

        `source` is who brought it, for the pool to know among whom it is hidden.
        """
        since = self._since.pop(ref, None)
        if destination.startswith(EXIT):
            now = self._pool_time() if since is None else since
            self.pool.add(ref, destination, source, now)
            return
        queue = self.queue(destination)
        if source and source == queue.own:
            queue.ready.appendleft(ref)
            queue.wake()
            return
        if self.reading and queue.ready and not self._is_of_before(ref):
            queue.newer.append(ref)
            self._behind.add(queue)
            return
        queue.ready.append(ref)
        queue.wake()

    def let_up(self) -> None:
        """While the spool is read: nothing newer waits where nothing older does."""
        for queue in [queue for queue in self._behind if not queue.ready]:
            self._behind.discard(queue)
            _move_up(queue)

    def all_read(self) -> None:
        """The spool was read: put the newer ones behind the older ones, everywhere."""
        self.reading = False
        self._behind.clear()
        for queue in self.queues.values():
            ready = queue.ready
            # What went ahead while nothing older was known is the first of it.
            ahead: deque[Ref] = deque()
            while ready and not self._is_of_before(ready[0]):
                ahead.append(ready.popleft())
            ready.extend(ahead)
            _move_up(queue)

    def depart(self, *, hold: bool = False) -> Iterator[None]:
        """Let the pool tick; what leaves it may go now.  Others may work in between."""
        for some in self.pool.tick(self._pool_time(), hold=hold):
            for ref, destination in some:
                self.queue(destination).ready.append(Ref(ref))
            yield

    def _pool_time(self) -> float:
        return trio.current_time() - self._stood

    def stand(self, seconds: float) -> None:
        """Let no time pass in the pool for so long: nobody grows older in an alarm."""
        self._stood += seconds

    def take_pool(self) -> list[Ref]:
        """Take all out of the pool; who comes back has been there since he first came."""
        out = self.pool.take_all()
        self._since.update((Ref(ref), since) for ref, since in out)
        return [Ref(ref) for ref, _ in out]

    def exits(self) -> list[str]:
        """Name the places outside for which something waits; drop the empty ones."""
        outside = {n: q for n, q in self.queues.items() if n.startswith(EXIT)}
        for name, queue in outside.items():
            if not (queue.ready or queue.newer or queue.hands):
                del self.queues[name]
        return [name for name, queue in outside.items() if queue.ready]

    def defer(self, ref: Ref, patience: Patience = INSIDE) -> None:
        """Count a try that failed; the next one is due after a while."""
        attempts = self.attempts[ref] = self.attempts.get(ref, 0) + 1
        due = trio.current_time() + retry_delay(attempts, self._entropy, patience)
        heapq.heappush(self.deferred, (due, ref))

    @property
    def due(self) -> float:
        """When the next of the deferred is to be tried."""
        return self.deferred[0][0] if self.deferred else NEVER

    def take_due(self, now: float) -> list[Ref]:
        """Take what is to be tried by now."""
        refs: list[Ref] = []
        while self.deferred and self.due <= now:
            refs.append(heapq.heappop(self.deferred)[1])
        return refs

    def take_deferred(self) -> list[Ref]:
        """Take all, whenever they are due; at once, however many they are."""
        refs = [ref for _, ref in self.deferred]
        self.deferred.clear()
        return refs

    def inherit(self, part: Ref, ref: Ref) -> None:
        """Note that what was tried, and what may lie there, is now this record."""
        if ref in self.attempts:
            self.attempts[part] = self.attempts[ref]
        if self.is_doubtful(ref):
            self.doubtful.add(part)

    def is_doubtful(self, ref: Ref) -> bool:
        """Say whether this record may have been delivered without our knowing."""
        return ref in self.doubtful or self._is_of_before(ref)

    def forget(self, ref: Ref) -> None:
        """Know nothing more of a record that is in no list."""
        self.attempts.pop(ref, None)
        self.doubtful.discard(ref)
        self._since.pop(ref, None)


def _move_up(queue: Queue) -> None:
    if queue.newer:
        queue.ready.extend(queue.newer)
        queue.newer.clear()
        queue.wake()
