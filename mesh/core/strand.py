# SPDX-License-Identifier: MIT
"""One connection of a link, and how the link moves to the next one unharmed.

A link's connections are replaced now and then (fresh keys, another route for those who
watch), and its streams do not notice: a message that takes three quarters of an hour
goes on where it was, on the next connection.

Each end says once, before all else, which connection it could go on from, by who
dialled that one and its counter, or none.  When both have said the same, the link that
was on the old one moves; else a new link begins.

An end that has no other connection to the peer says so in its very first cell, which
is sealed before anything was heard: "none" binds nothing.  An end that has one waits
until the new connection is up (a cell of the other side has opened).  Earlier it does
not know which of its connections the other side will count as alive, and it would stake
the old one, which works, on one that may never come up: who is offered falls with it.
So a link begins two cells earlier, and one that moves goes on meanwhile where it was.

    end A, old    ... data   moved: octets said so far   padding ...  the last cell
    end A, new    hello: old    (hears the same)   data goes on ...

Each end moves its own words at its own time, at a boundary of bodies.  What it says on
the new connection may overtake what is still on its way on the old one; so bodies of
the new one wait until `moved` has come on the old, and the count of octets in it must
be what was heard.

A connection is offered to one other at a time, and not while it waits itself.  Who is
offered, or waits, ends when the other one does (`falls_with`):

    the old one ends    before `moved` came: words are lost, the new one ends
    the new one ends    before its hello came: the other end may have moved, and
                        what it says is lost; the old one ends

Then both ends begin afresh, and nothing is lost but time.

Segments alone in their body, stream 0:

    5  hello   u8 dialled by the smaller ID, u64 counter; zeros: none to go on from
    5  moved   u64 octets of commands and messages, u64 of replies, since the link began
    6  close   nothing: the last body here, at a cell that was counted off and not when
               all was said; so whoever hears it ends when mail has no part in it

Invariant: what a connection carries is padding or one body of this, whatever its link
does; nothing here looks at a clock.  Raises RemoteProtocolError for what no honest
peer does.
"""

import struct
from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple

from mesh.core.cell import (
    BODY_LEN,
    CELL_LEN,
    CLOSE_BODY,
    PADDING,
    BodyWriter,
    Kind,
    parse_untrusted,
)
from mesh.core.link import Link
from mesh.core.streams import Tally
from mesh.errors import CellError

HELD_MAX: Final = 4096
"""Bodies of the new connection that may wait for the old one's last words: 16 MB, more
than the credit of all streams, and a second of the fastest class, in which a packet of
the old one is sent again.  More is a peer that never says `moved`."""
_HELLO: Final = struct.Struct(">BQ")
_MOVED: Final = struct.Struct(">QQ")


class Ident(NamedTuple):
    """A connection of two peers: who dialled it, and its counter."""

    by_smaller: bool
    counter: int


NO_IDENT: Final = Ident(by_smaller=False, counter=0)
"""No connection to go on from: a counter is never 0."""


class Strand:
    """One connection's part in a link."""

    def __init__(self, ident: Ident, begin: Callable[[], Link]) -> None:
        """`begin` makes the link when this connection goes on from none."""
        self.ident = ident
        self._begin = begin
        self.link: Link | None = None
        """The link whose words this carries; None before both ends have agreed."""
        self.up = False
        """A body of the other side has opened: key confirmation."""
        self.peer_closed = False
        """The other side has said that this connection ends."""
        self.successor: Strand | None = None
        """The connection that the link has moved to, as far as this end's words go."""
        self.heard_out = False
        """The other side has said `moved`: nothing more comes here."""
        self.awaited = False
        """Another connection has offered to go on from here, and has no answer yet."""
        self.offered: Strand | None = None
        """The connection that the link could come from, until the answer."""
        self._hello: bytes | None = None  # to be said
        self._said: Ident | None = None
        self._moved: bytes | None = None  # to be said
        self._waits_for: Strand | None = None
        self._held: deque[bytes] = deque()

    def offer(self, old: "Strand | None") -> None:
        """Say that the link of `old` could move here, once this is up; None: of none."""
        self._said = NO_IDENT
        if old is not None and old.movable:
            self.offered = old
            self._said = old.ident
            old.awaited = True
        self._hello = hello_body(self._said)

    @property
    def has_said(self) -> bool:
        """Its hello is said, or to be said in the next body."""
        return self._said is not None

    @property
    def movable(self) -> bool:
        """The link is here at both ends, as far as this one knows, and may be offered."""
        return self.current and not (self.awaited or self.waits)

    @property
    def waits(self) -> bool:
        """What came here waits for the last words on the old connection."""
        return self._waits_for is not None

    def falls_with(self, gone: "Strand") -> bool:
        """Whether this connection cannot go on because that one has ended."""
        return gone in (self.offered, self._waits_for) or gone.offered is self

    @property
    def current(self) -> bool:
        """The link's words leave here."""
        return self.link is not None and self.successor is None

    # bodies out

    @property
    def has_data(self) -> bool:
        """The next body would not be padding."""
        if self._hello or self._moved:
            return True
        return self.current and self.link is not None and self.link.has_data

    @property
    def has_done(self) -> bool:
        """The next body tells of ids, for which alone none need leave."""
        return self.current and self.link is not None and self.link.has_done

    def next_body(self) -> bytes:
        """Return the next body: BODY_LEN octets, padding when there is nothing."""
        if self._hello:
            body, self._hello = self._hello, None
            return body
        if self._moved:
            body, self._moved = self._moved, None
            return body
        if self.link is None or self.successor:
            return PADDING
        return self.link.next_body()

    def write_bodies(self, room: memoryview) -> int:
        """Write the next bodies into cells: octets of those that have one, one at least."""
        if self.link and not (self._hello or self._moved or self.successor):
            return self.link.write_bodies(room)
        room[:BODY_LEN] = self.next_body()
        return CELL_LEN

    # bodies in

    def receive_bodies(self, room: memoryview) -> None:
        """Take bodies that opened, side by side in their cells."""
        at = 0
        while True:
            if self.link and not (self.waits or self.heard_out):
                at = self.link.receive_full(room, at)
            if at == len(room):
                return
            self.receive_body(bytes(room[at : at + BODY_LEN]))
            at += CELL_LEN

    def receive_body(self, body: bytes) -> None:
        """Take a body that opened."""
        self.up = True
        if body == PADDING:
            return
        if self.waits:
            if len(self._held) == HELD_MAX:
                raise CellError("the old connection never says that it is over")
            self._held.append(body)
        else:
            self._take_untrusted(body)

    def _take_untrusted(self, body: bytes) -> None:
        """Take a body in its turn."""
        if body[0] == Kind.MOVE:
            self._receive_move_untrusted(body)
        elif body == CLOSE_BODY:
            self.peer_closed = True
            if self.link is not None and not self.successor:
                self.link.peer_closed = True
        elif self.link is not None and not self.heard_out:
            self.link.receive_body(body)
        else:
            raise CellError("words on a connection that has none to say")

    def _receive_move_untrusted(self, body: bytes) -> None:
        segments = parse_untrusted(body)
        segment = segments[0]
        if len(segments) > 1:
            raise CellError("a move among other words")
        if len(segment.octets) == _HELLO.size:
            self._receive_hello_untrusted(segment.octets)
        else:
            self._receive_moved_untrusted(segment.octets)

    def _receive_hello_untrusted(self, octets: memoryview) -> None:
        if self.link is not None:
            raise CellError("a second hello")
        if self._said is None:
            raise CellError("a hello before this end was asked")
        theirs = Ident(*_HELLO.unpack(octets))
        old, self.offered = self.offered, None
        if old is not None:
            old.awaited = False
        if old is not None and theirs == self._said:
            self.link = old.leave(self)
            if not old.heard_out:
                self._waits_for = old
        else:
            self.link = self._begin()
            self.link.up = True

    def leave(self, successor: "Strand") -> Link:
        """Say `moved` here; the link's words leave by the successor."""
        if self.link is None:
            raise AssertionError("no link to move")
        self.successor = successor
        said = self.link.said
        self._moved = _segment(_MOVED.pack(said.commands, said.replies))
        return self.link

    def _receive_moved_untrusted(self, octets: memoryview) -> None:
        if self.link is None or self.heard_out:
            raise CellError("words on a connection that has none to say")
        if not (self.awaited or self.successor):
            raise CellError("a move that this end knows nothing of")
        if Tally(*_MOVED.unpack(octets)) != self.link.heard:
            raise CellError("octets were lost between two connections")
        self.heard_out = True
        if self.successor:
            self.successor.release()

    def release(self) -> None:
        """Take up what waited for the old connection's last words."""
        while self._held:
            self._take_untrusted(self._held.popleft())
        self._waits_for = None


def hello_body(old: Ident = NO_IDENT) -> bytes:
    """The body that names the connection to go on from."""
    return _segment(_HELLO.pack(*old))


def _segment(octets: bytes) -> bytes:
    writer = BodyWriter()
    writer.add(Kind.MOVE, 0, octets)
    return writer.finish()
