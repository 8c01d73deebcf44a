# SPDX-License-Identifier: MIT
"""One peer: its links' insides, what is on its way to it, what it hands over.

    their message  -> a heartbeat of ours? 250 : its id known? the old reply : stored, then 250, then its queue
    our queue      -> a free stream of the peer's best link -> their replies
                      250: forgotten here, and when that is durable: DONE=<id> in the next
                           cell, and on the next link again if it may not be heard
                      4yz: deferred, 5yz: bounced; with a 250 among them: DONE, too
                      link gone: back into the queue
                   -> somebody else's by now: routed anew, not offered

An id (128 bits, new for every hop) is stored once: while its first copy is being
committed later copies wait for that commit; afterwards they get its reply.  Ids are
kept until DONE or 8 days of running time, at most PER_PEER_MAX a peer (ids.py), then 452.
While a start still reads the spool nobody knows all of them: what comes with an id waits
for that, unless its link ends, and its answer is late; behind HELD_MAX octets of such it is
452 at once.
"""

import math
from collections import deque
from collections.abc import Callable, Sequence
from itertools import count
from typing import Final

import trio

from mesh.core.clock import period_of
from mesh.core.dialogue import MessageReceived
from mesh.core.election import SILENT_PERIODS, SILENT_SECONDS, we_are_smaller
from mesh.core.envelope import without_route
from mesh.core.gossip import MUTE
from mesh.core.handshake import Session
from mesh.core.link import Link, Received
from mesh.core.record import ID_LEN, NO_ID, Record
from mesh.core.reply import NO_ROOM, OK, Reply
from mesh.core.smtp import Finished, Outgoing
from mesh.core.strand import Ident
from mesh.node.conversation import Conversation
from mesh.node.gossip import Gossiping
from mesh.node.ids import PER_PEER_MAX
from mesh.node.inside import Inside, Port
from mesh.node.parking import Parking
from mesh.node.qmgr import Queue, QueueManager
from mesh.node.rivals import best_of
from mesh.node.spool import Ref

FLYING_MAX: Final = 8_388_608
"""Octets of messages on their way to one peer from which on no more is sent."""
HELD_MAX: Final = FLYING_MAX
"""Octets of messages of one peer from which on no more wait until the ids are known.  No
honest peer sends more when so much is on its way: only one that is not is refused."""
FETCH_MAX: Final = 8
"""Records read from the disk at once for one peer."""
BEAT: Final = object()
"""Stands for a heartbeat, of which nothing is on any list."""
PORTS_MAX: Final = 8
"""Connections of one peer at once.  An honest one has four: one up, its replacement, one
of a crossing dial, one about to end; each may hold a megabyte of kernel memory."""


class Peer:
    """One peer: its links, its queue, the ids that it gave us."""

    def __init__(
        self,
        *,
        name: str,
        identity: bytes,
        our_identity: bytes,
        qmgr: QueueManager,
        refusal: Callable[[str, str], Reply | None],
        our_name: str,
        max_message: int,
        gossip: Gossiping | None,
        is_ours: Callable[[bytes], bool],
    ) -> None:
        """`refusal` says why this peer (by name) may not hand over for a path.

        `is_ours` takes a heartbeat that comes back (heartbeat.py).
        """
        self._is_ours, self._gossip = is_ours, gossip
        self._beat: Outgoing | None = None
        self._our_name, self._max_message = our_name, max_message
        self.name = name
        self.identity = identity
        self._our_identity = our_identity
        self._refusal = refusal
        self.fingerprint = identity[:ID_LEN]
        self.ports: list[Port] = []
        self.reason = ""
        """Why no link is up, in a few words; "" while nothing has failed."""
        self._ups = count(1)
        self.changed = Parking()
        """Wakes the dialer when a link came up or ended."""
        self._qmgr = qmgr
        self.guard = qmgr.guard
        self._queue: Queue = self._qmgr.queue(name)
        self._queue.wake, self._queue.own = self.fill, self.fingerprint
        self._flying_octets = 0
        self._fetched: deque[tuple[Ref, Record]] = deque()
        self._fetching = Parking()
        self._done: list[bytes] = []
        self._pending: dict[bytes, list[Callable[[Reply], None]]] = {}
        self._held: list[tuple[Inside, Received]] = []

    @property
    def up(self) -> bool:
        """A link of this peer is up at this end."""
        return self.session is not None

    @property
    def due(self) -> float:
        """When we are to replace the connection that is up; never, if we did not dial."""
        ours = (p.due for p in self.ports if p.up and p.session.we_initiated)
        return min(ours, default=math.inf) if not self._is_moving else math.inf

    @property
    def _is_moving(self) -> bool:
        """A connection is being made or given up: one replacement at a time."""
        return len(self.ports) != 1

    @property
    def linked(self) -> bool:
        """There is a connection, up or not yet, that is not about to end."""
        return any(not port.retired for port in self.ports)

    @property
    def session(self) -> Session | None:
        """What was agreed on for the link that is up."""
        living = [port for port in self.ports if port.up]
        best = [port for port in living if not port.retired]
        # One that is to be replaced carries the link until the other side has agreed.
        best += [port for port in living if port.strand.awaited]
        return best[0].session if best else None

    # links

    def admit(self, port: Port) -> None:
        """Take a connection on; of too many, the oldest that never came up is closed."""
        self.ports.append(port)
        if len(self.ports) == 1:  # whatever comes, there is nothing to go on from
            port.strand.offer(None)
        open_ = [each for each in self.ports if not each.scope.cancel_called]
        if len(open_) > PORTS_MAX:
            next(each for each in open_ if not each.strand.up).scope.cancel()
        self.changed.wake()

    def ident(self, session: Session) -> Ident:
        """Name a connection as both ends do."""
        smaller = we_are_smaller(self._our_identity, self.identity)
        return Ident(session.we_initiated == smaller, session.counter)

    def begin(self, port: Port) -> Inside:
        """Begin a link's streams and its gossip."""
        talk = self._gossip.begin(port.session) if self._gossip else None
        link = Link(
            name=self._our_name,
            peer=self.name,
            accepts=self.accepts,
            max_message=self._max_message,
            gossip=talk.core if talk else MUTE,
        )
        return Inside(self, link, port, talk)

    def came_up(self, port: Port) -> None:
        """Keep the one link that both ends name; close the others."""
        port.came_up = next(self._ups)
        self.reason = ""
        rivals = [each for each in self.ports if each.strand.up and not each.retired]
        best = best_of(
            rivals,
            smaller=we_are_smaller(self._our_identity, self.identity),
            klass=port.session.klass,
            now=trio.current_time(),
        )
        if not port.strand.has_said:
            silent = trio.current_time() - SILENT_SECONDS
            silent -= SILENT_PERIODS * period_of(port.session.klass)
            living = (r for r in rivals if r.inside and r.heard > silent)
            old = next(living, None) if best is port else None
            port.strand.offer(old.strand if old else None)
        for other in rivals:
            if other is not best:
                other.retire()
        self.changed.wake()

    def agreed(self, port: Port, link: Link) -> None:
        """Note that a link goes on, or begins, at this connection."""
        for other in self.ports:
            if other.inside is not None and other.inside.link is link:
                port.inside = other.inside
                port.inside.move(port)
            other.on_data()
        self.changed.wake()

    def ended(self, port: Port) -> None:
        """Take back what was on its way on a link that is gone."""
        self.ports.remove(port)
        inside = port.inside
        for other in self.ports:
            if other.strand.falls_with(port.strand):
                other.scope.cancel()
        if inside is not None and inside.port is not port:
            self.changed.wake()  # the link goes on elsewhere
            return
        back = []
        if inside is not None:
            inside.end()
            self._held = [one for one in self._held if one[0] is not inside]
            self._done += inside.link.untold()
            flying = inside.flying
            self._flying_octets -= sum(len(r.content) for r in flying.values())
            back = list(flying)
        if not self.ports:  # the peer may be gone for good: keep nothing from others
            back += [ref for ref, _ in self._fetched]
            self._fetched.clear()
        self._qmgr.release(self.name, back)
        self.changed.wake()

    def converse(self) -> Conversation | None:
        """Begin a dialogue of a person or a tool; None while no stream is to be had."""
        inside = self._free()
        return None if inside is None else inside.people.begin()

    def _free(self) -> Inside | None:
        """Give the link that takes mail now."""
        return next((port.inside for port in self.ports if port.can_offer), None)

    def close_links(self) -> None:
        """End all links at once: the peer was removed."""
        for port in self.ports:
            port.scope.cancel()

    # ours to them

    def fill(self) -> None:
        """Give the best link what its free streams take."""
        inside = self._free()
        if inside is not None:
            with self.guard(inside.cut):
                self._fill(inside)

    def beat(self, path: str, content: bytes) -> None:
        """Send a heartbeat as soon as a stream is free, and only the newest."""
        self._beat = Outgoing(BEAT, "", (path,), content)
        self.fill()

    def _fill(self, inside: Inside) -> None:
        if self._done:
            inside.link.done(self._done)
            self._done = []
        if self._beat is not None and inside.link.can_offer:
            beat, self._beat = self._beat, None
            inside.link.offer(beat)
        while inside.link.can_offer and self._flying_octets < FLYING_MAX:
            if self._fetched:
                ref, record = self._fetched.popleft()
            elif self._queue.ready:
                ref = self._queue.ready[0]
                if (hot := self._qmgr.spool.hot(ref)) is None:
                    self._fetching.wake()
                    break
                self._queue.ready.popleft()
                record = hot
            else:
                break
            self._offer(inside, ref, record)
        if inside.port.has_data:
            inside.port.on_data()

    def _offer(self, inside: Inside, ref: Ref, record: Record) -> None:
        """Put a message on a free stream of the link, if it still goes there."""
        path, to, content = record.reverse_path, record.recipients, record.content
        try:
            if any(self._qmgr.router(each) != self.name for each in to):
                self._qmgr.lead_back([ref])  # no queue had it when addresses moved
                return
            inside.link.offer(Outgoing(ref, path, to, content, record.id))
        except BaseException:  # a bug: the next link is not to end by it, too
            self._qmgr.defer(ref)
            raise
        inside.flying[ref] = record
        self._flying_octets += len(content)

    async def fetch_forever(self) -> None:
        """Read what is not in memory any more, a few records ahead of the link."""
        while True:
            if self._fetched or not self._queue.ready or not self.up:
                await self._fetching.park()
                continue
            ready = self._queue.ready
            refs = [ready.popleft() for _ in range(min(FETCH_MAX, len(ready)))]
            records = await self._qmgr.spool.read(refs)
            for ref, record in zip(refs, records, strict=True):
                if record is None:
                    self._qmgr.unreadable(ref)
                elif self.ports:
                    self._fetched.append((ref, record))
                else:
                    self._qmgr.release(self.name, [ref])
            self.fill()

    def finished(self, inside: Inside, event: Finished) -> None:
        """Draw the consequence of the peer's replies to one of our messages."""
        ref = event.token
        if ref is BEAT:
            return
        record = inside.flying.pop(ref)  # type: ignore[call-overload]
        self._flying_octets -= len(record.content)
        ident = record.id  # and not the record: its octets may go

        def durable() -> None:
            if not inside.tell_done(ident):
                self._done.append(ident)

        if self._qmgr.settle(ref, record, event.replies, durable=durable):  # type: ignore[arg-type]
            self._qmgr.delivered(ref, durable)  # type: ignore[arg-type]

    # theirs to us

    def take(self, inside: Inside, received: Received) -> None:
        """Store a message of theirs once, and answer."""
        stream, message = received
        spool = self._qmgr.spool

        def answer(reply: Reply) -> None:
            if inside.alive:
                inside.answer(stream, reply)

        ident = message.id
        if self._is_ours(message.content):
            answer(OK)
            return
        if ident is None:
            self._store(message, answer)
            return
        if not spool.is_indexed:
            if not self._hold(inside, received):
                answer(NO_ROOM)
            return
        waiting = self._pending.get(ident)
        if waiting is not None:
            waiting.append(answer)
        elif spool.knows(self.fingerprint, ident):
            answer(OK)
        elif spool.known_ids(self.fingerprint) >= PER_PEER_MAX:
            answer(NO_ROOM)
        else:
            self._store_once(ident, message, answer)

    def _store_once(
        self, ident: bytes, message: MessageReceived, answer: Callable[[Reply], None]
    ) -> None:
        """Store it; who offers it again meanwhile hears the same answer."""
        self._pending[ident] = [answer]

        def settled(reply: Reply) -> None:
            for each in self._pending.pop(ident):
                each(reply)

        try:
            self._store(message, settled)
        except BaseException:  # a bug: whoever offers it again is not to wait
            self._pending.pop(ident, None)
            raise

    def _hold(self, inside: Inside, received: Received) -> bool:
        """Keep a message until it is known which ids are; False: that is too much."""
        if sum(len(each.message.content) for _, each in self._held) >= HELD_MAX:
            return False
        if not self._held:
            self._qmgr.spool.when_indexed(self._take_held)
        self._held.append((inside, received))
        return True

    def _take_held(self) -> None:
        held, self._held = self._held, []
        for inside, received in held:
            with self.guard(inside.cut):  # the spool's own task called
                self.take(inside, received)

    def _store(self, message: MessageReceived, answer: Callable[[Reply], None]) -> None:
        self._qmgr.accept(
            reverse_path=message.reverse_path,
            recipients=[without_route(path) for path in message.recipients],
            content=message.content,
            answer=answer,
            origin=self.fingerprint,
            origin_id=message.id or NO_ID,
        )

    def ids_done(self, ids: Sequence[bytes]) -> None:
        """Forget ids that the peer will not offer again."""
        for ident in ids:
            self._qmgr.spool.forget_id(self.fingerprint, ident)

    def accepts(self, path: str) -> Reply | None:
        """Say why this peer may not hand over mail for a path; None: it may."""
        return self._refusal(self.name, path)
