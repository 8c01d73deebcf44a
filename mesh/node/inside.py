# SPDX-License-Identifier: MIT
"""A link's inside, and the connections that carry it one after the other.

    Inside   the link: its streams, what is on its way on them, who speaks on them
    Port     one connection: what its carrier asks of it (port.py), and how it ends

A connection that is replaced, or that loses against another, ends only when the other
side has agreed on what is gone on from (core/strand.py).  How many cells it still
sends does not depend on what waits.
"""

from collections.abc import Callable
from typing import Final, Protocol

import trio

from mesh.core.cell import BODY_LEN, CELL_LEN, CLOSE_BODY
from mesh.core.clock import Clock
from mesh.core.handshake import Session
from mesh.core.link import Done, Link, Received
from mesh.core.record import Record
from mesh.core.reply import Reply
from mesh.core.smtp import Finished
from mesh.core.strand import Ident, Strand
from mesh.errors import RemoteProtocolError
from mesh.node.conversation import Conversations
from mesh.node.gossip import Talk
from mesh.node.guard import Guard
from mesh.node.port import Ending
from mesh.node.spool import Ref

LAST_CELLS: Final = 2
"""Cells before the last one of a node that ends: so many, whatever waits."""
REPLACED_CELLS: Final = 64
"""Cells before the last one of a connection that was replaced: so many, whatever is
on its way; more than a ring holds, so that all that was put there has left."""


class Owner(Protocol):
    """The peer that connections belong to."""

    guard: Guard
    """What keeps a bug in its connection."""

    def ident(self, session: Session) -> Ident:
        """Name a connection as both ends do."""

    def begin(self, port: "Port") -> "Inside":
        """Begin a link."""

    def came_up(self, port: "Port") -> None:
        """A cell of the other side has opened for the first time."""

    def agreed(self, port: "Port", link: Link) -> None:
        """Both ends have said which link this connection carries."""

    def take(self, inside: "Inside", received: Received) -> None:
        """Store a message of theirs, and answer."""

    def finished(self, inside: "Inside", event: Finished) -> None:
        """Draw the consequence of their replies to one of ours."""

    def ids_done(self, ids: tuple[bytes, ...]) -> None:
        """Forget ids."""

    def fill(self) -> None:
        """Give the link what its free streams take."""


class Inside:
    """A link's life: its streams, what is on its way on them, who speaks on them.

    It is carried by one port, and by another when the connection is replaced.
    """

    def __init__(
        self, peer: Owner, link: Link, port: "Port", talk: Talk | None = None
    ) -> None:
        self.peer, self.link, self.port = peer, link, port
        self.talk = talk
        if talk:
            talk.wake = lambda: self.port.on_data()
            talk.attend()  # a dialler's handshake says what it has
        self.flying: dict[Ref, Record] = {}
        self.people = Conversations(link, lambda: self.port.on_data())
        self.alive = True
        self._attending = False

    def move(self, port: "Port") -> None:
        """Be carried by this connection from now on."""
        self.port = port
        if self.talk:
            self.talk.moved(port.session)

    def cut(self) -> None:
        """End the connection that carries it."""
        self.port.scope.cancel()

    def answer(self, stream: int, reply: Reply) -> None:
        """Answer a message, and take up what was sent ahead of the answer.

        Called by commits too, where the peer's mistake, or a bug of ours that it has
        found, must end nothing but its link.
        """
        with self.peer.guard(self.cut):
            try:
                self.link.answer(stream, reply)
                self.attend()
            except RemoteProtocolError:
                self.cut()
        self.port.on_data()

    def tell_done(self, ident: bytes) -> bool:
        """Have the next cell say that this id may be forgotten; False: there is none."""
        if self.alive:
            self.link.done((ident,))
            if self.port.session.clock is not Clock.GREEDY:
                self.port.on_data()
        return self.alive

    def attend(self) -> None:
        """Draw the consequences of what has been heard."""
        if self._attending or not self.alive:
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
            if self.talk:
                self.talk.attend()
        finally:
            self._attending = False

    def end(self) -> None:
        """Nothing is carried any more."""
        self.alive = False
        self.people.lost()
        if self.talk:
            self.talk.ended()


class Port:
    """One connection as its carrier sees it, and the peer that it belongs to."""

    def __init__(self, peer: Owner, session: Session, due: float) -> None:
        """`due`: when the connection is to be replaced."""
        self.peer, self.session, self.due = peer, session, due
        self.strand = Strand(peer.ident(session), self._begin)
        self.inside: Inside | None = None
        self.scope = trio.CancelScope()
        self.heard = trio.current_time()
        self.came_up = 0
        self.retired = False
        """Another connection is the better one: this one ends."""
        self._agreed = False
        self._closing = False
        self._left = -1  # a `greedy` link's bodies before the last one, when it ends
        self._on_data: Callable[[], None] = lambda: None

    @property
    def on_data(self) -> Callable[[], None]:
        """What the carrier wants called; a bug in it ends this connection alone."""
        return self._wake

    @on_data.setter
    def on_data(self, call: Callable[[], None]) -> None:
        self._on_data = call

    def _wake(self) -> None:
        with self.peer.guard(self.scope.cancel):
            self._on_data()

    def _begin(self) -> Link:
        self.inside = self.peer.begin(self)
        return self.inside.link

    @property
    def up(self) -> bool:
        """Both ends have agreed which link it carries, and that one lives."""
        return self.inside is not None and self.inside.alive

    @property
    def can_offer(self) -> bool:
        """Mail may be given to this connection's link."""
        if self.inside is None or self.retired or self.scope.cancel_called:
            return False
        return self.inside.link.can_offer

    @property
    def has_data(self) -> bool:
        """The next body would not be padding.

        A `greedy` link has no cell for ids alone: they go with the next one, at the
        latest the one of padding that follows a T without any.  Others' cells leave
        anyway.
        """
        if self.strand.has_data or self._left >= 0:
            return True
        return self.session.clock is not Clock.GREEDY and self.strand.has_done

    @property
    def ending(self) -> Ending | None:
        """How the connection ends, once either side has said so."""
        if self._closing or self.strand.peer_closed:
            return Ending(LAST_CELLS)
        if self.strand.awaited or not self.retired:
            return None  # its last words come when the other side has agreed
        return Ending(REPLACED_CELLS, linger=True)

    @property
    def finished(self) -> bool:
        """Both sides have said here what they had to: a `greedy` carrier ends."""
        if self.strand.peer_closed or (self._closing and self._left < 0):
            return True
        if self.strand.successor is None:
            return self.retired and not self.strand.awaited
        return self.strand.heard_out and not self.strand.has_data

    def next_body(self) -> bytes:
        """Return the next body to seal."""
        if self._left >= 0:
            self._left -= 1
            if self._left < 0:
                return CLOSE_BODY
        return self.strand.next_body()

    def write_bodies(self, room: memoryview) -> int:
        """Write bodies to seal into cells; octets of those that have one now."""
        if self._left < 0:
            return self.strand.write_bodies(room)
        room[:BODY_LEN] = self.next_body()
        return CELL_LEN

    def receive_bodies(self, room: memoryview) -> None:
        """Take bodies that opened, side by side in their cells."""
        at = 0
        while at < len(room) and not self._agreed:
            self.receive_body(bytes(room[at : at + BODY_LEN]))
            at += CELL_LEN
        self.strand.receive_bodies(room[at:])

    def receive_body(self, body: bytes) -> None:
        """Take a body that opened."""
        if not self.strand.up:
            self.strand.up = True
            self.peer.came_up(self)
        self.strand.receive_body(body)
        if not self._agreed and self.strand.link is not None:
            self._agreed = True
            self.peer.agreed(self, self.strand.link)

    def received(self) -> None:
        """Draw the consequences of all bodies of one read."""
        self.heard = trio.current_time()
        if self.inside is not None:
            self.inside.attend()
        self.peer.fill()
        if self.has_data or self.finished:
            self.on_data()

    def retire(self) -> None:
        """End this connection; what its link says goes by another."""
        self.retired = True
        self.on_data()

    def close(self) -> None:
        """Take no more messages, and end; the node does.  Again is no error."""
        if self._closing:
            return
        self._closing = True
        if self.inside is None:
            self.scope.cancel()
            return
        self.inside.link.close()
        if self.session.clock is Clock.GREEDY:  # the others' lanes count for themselves
            self._left = LAST_CELLS
        self.on_data()
