# SPDX-License-Identifier: MIT
"""One peer: its links' insides, what is on its way to it, what it hands over.

    their message  -> its id known? the old reply : stored, then 250, then its queue
    our queue      -> a free stream of the peer's best link -> their replies
                      250: forgotten here, and when that is durable: DONE=<id>,
                           on the next link again if this one ends before it is heard
                      4yz: deferred, 5yz: bounced   link gone: back into the queue

An id (128 bits, new for every hop) is stored once: while its first copy is being
committed later copies wait for that commit; afterwards they get its reply.  Ids are
kept until DONE or 8 days of running time, at most PER_PEER_MAX a peer (ids.py), then 452.
"""

from collections import deque
from collections.abc import Callable, Sequence
from itertools import count
from typing import Final

import trio

from mesh.core.dialogue import MessageReceived
from mesh.core.election import we_are_smaller
from mesh.core.handshake import Session
from mesh.core.link import Done, Link, Received
from mesh.core.record import ID_LEN, NO_ID, Record
from mesh.core.reply import NO_ROOM, OK, Reply
from mesh.core.smtp import Finished, Outgoing
from mesh.errors import RemoteProtocolError
from mesh.node.conversation import Conversation, Conversations
from mesh.node.ids import PER_PEER_MAX
from mesh.node.parking import Parking
from mesh.node.port import Ending
from mesh.node.qmgr import Queue, QueueManager
from mesh.node.rivals import best_of
from mesh.node.spool import Ref

FLYING_MAX: Final = 8_388_608
"""Octets of messages on their way to one peer; one larger message goes alone."""
LAST_CELLS: Final = 2
"""Cells before the last one of a node that ends: so many, whatever waits."""
FETCH_MAX: Final = 8
"""Records read from the disk at once for one peer."""


class Port:
    """One link's inside as its carrier sees it, and the peer that it belongs to."""

    def __init__(self, peer: "Peer", link: Link, session: Session) -> None:
        self.peer, self.link, self.session = peer, link, session
        self.flying: dict[Ref, Record] = {}
        self.scope = trio.CancelScope()
        self.heard = trio.current_time()
        self.came_up = 0
        self._attending = False
        self.on_data: Callable[[], None] = lambda: None
        self.people = Conversations(link, lambda: self.on_data())

    @property
    def has_data(self) -> bool:
        """The next body would not be padding."""
        return self.link.has_data

    @property
    def finished(self) -> bool:
        """One side has said its last word."""
        return self.link.finished or self.link.peer_closed

    @property
    def ending(self) -> Ending | None:
        """How the link ends, once either side has said so."""
        over = self.link.closing or self.link.peer_closed
        return Ending(LAST_CELLS) if over else None

    def next_body(self) -> bytes:
        """Return the next body to seal."""
        return self.link.next_body()

    def receive_body(self, body: bytes) -> None:
        """Take a body that opened."""
        was_up = self.link.up
        self.link.receive_body(body)
        if not was_up:
            self.peer.came_up(self)

    def received(self) -> None:
        """Draw the consequences of all bodies of one read."""
        self.heard = trio.current_time()
        self._attend()
        self.peer.fill()
        if self.link.has_data:
            self.on_data()

    def answer(self, stream: int, reply: Reply) -> None:
        """Answer a message, and take up what was sent ahead of the answer.

        Called by commits too, where the peer's mistake must end nothing but its link.
        """
        try:
            self.link.answer(stream, reply)
            self._attend()
        except RemoteProtocolError:
            self.scope.cancel()
        self.on_data()

    def _attend(self) -> None:
        if self._attending:
            return  # an answer at once: the loop below goes on with what it brought
        self._attending = True
        try:
            while (event := self.link.next_event()) is not None:
                if isinstance(event, Received):
                    self.peer.take(self, event)
                elif isinstance(event, Finished):
                    self.peer.finished(self, event)
                elif isinstance(event, Done):
                    self.peer.ids_done(event.ids)
                else:
                    self.people.hear(event)
        finally:
            self._attending = False


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
    ) -> None:
        """`refusal` says why this peer (by name) may not hand over for a path."""
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
        self._queue: Queue = self._qmgr.queue(name)
        self._queue.wake = self.fill
        self._flying_octets = 0
        self._fetched: deque[tuple[Ref, Record]] = deque()
        self._fetching = Parking()
        self._done: list[bytes] = []
        self._pending: dict[bytes, list[Callable[[Reply], None]]] = {}

    @property
    def up(self) -> bool:
        """A link of this peer is up at this end."""
        return self.session is not None

    @property
    def session(self) -> Session | None:
        """What was agreed on for the link that is up."""
        return next((port.session for port in self.ports if port.link.up), None)

    # links

    def came_up(self, port: Port) -> None:
        """Keep the one link that both ends name; close the others."""
        port.came_up = next(self._ups)
        self.reason = ""
        rivals = [other for other in self.ports if other.link.up]
        best = best_of(
            rivals,
            smaller=we_are_smaller(self._our_identity, self.identity),
            klass=port.session.klass,
            now=trio.current_time(),
        )
        for other in rivals:
            if other is not best:
                other.scope.cancel()
        self.changed.wake()

    def ended(self, port: Port) -> None:
        """Take back what was on its way on a link that is gone."""
        self.ports.remove(port)
        port.people.lost()
        self._done += port.link.untold()
        self._flying_octets -= sum(len(r.content) for r in port.flying.values())
        back = list(port.flying)
        if not self.ports:  # the peer may be gone for good: keep nothing from others
            back += [ref for ref, _ in self._fetched]
            self._fetched.clear()
        self._qmgr.release(self.name, back)
        self.changed.wake()

    def converse(self) -> Conversation | None:
        """Begin a dialogue of a person or a tool; None while no stream is to be had."""
        port = next((p for p in self.ports if p.link.can_offer), None)
        return None if port is None else port.people.begin()

    def close_links(self) -> None:
        """End all links at once: the peer was removed."""
        for port in self.ports:
            port.scope.cancel()

    # ours to them

    def fill(self) -> None:
        """Give the best link what its free streams take."""
        port = next((p for p in self.ports if p.link.can_offer), None)
        if port is None:
            return
        if self._done:
            port.link.done(self._done)
            self._done = []
        while port.link.can_offer and self._flying_octets < FLYING_MAX:
            if self._fetched:
                ref, record = self._fetched.popleft()
            elif self._queue.ready:
                ref = self._queue.ready[0]
                hot = self._qmgr.spool.hot(ref)
                if hot is None:
                    self._fetching.wake()
                    break
                self._queue.ready.popleft()
                record = hot
            else:
                break
            port.flying[ref] = record
            self._flying_octets += len(record.content)
            port.link.offer(
                Outgoing(
                    ref,
                    record.reverse_path,
                    record.recipients,
                    record.content,
                    record.id,
                )
            )
        if port.link.has_data:
            port.on_data()

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

    def finished(self, port: Port, event: Finished) -> None:
        """Draw the consequence of the peer's replies to one of our messages."""
        ref = event.token
        record = port.flying.pop(ref)  # type: ignore[call-overload]
        self._flying_octets -= len(record.content)
        if self._qmgr.settle(ref, record, event.replies):  # type: ignore[arg-type]
            ident = record.id  # and not the record: its octets may go

            def durable() -> None:
                self._done.append(ident)

            self._qmgr.delivered(ref, durable)  # type: ignore[arg-type]

    # theirs to us

    def take(self, port: Port, received: Received) -> None:
        """Store a message of theirs once, and answer."""
        stream, message = received
        spool = self._qmgr.spool

        def answer(reply: Reply) -> None:
            if port in self.ports:
                port.answer(stream, reply)

        ident = message.id
        if ident is None:
            self._store(message, answer)
            return
        waiting = self._pending.get(ident)
        if waiting is not None:
            waiting.append(answer)
        elif spool.knows(self.fingerprint, ident):
            answer(OK)
        elif spool.known_ids(self.fingerprint) >= PER_PEER_MAX:
            answer(NO_ROOM)
        else:
            waiting = self._pending[ident] = [answer]

            def settled(reply: Reply) -> None:
                for each in self._pending.pop(ident):
                    each(reply)

            self._store(message, settled)

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


def without_route(path: str) -> str:
    """Take the source route off a forward-path: `@me:x@peer` is `x@peer`."""
    return path.partition(":")[2] if path.startswith("@") else path
