# SPDX-License-Identifier: MIT
"""One link at one of its instants: the only hand that sends its cells and reads them.

    1  send    the cell that was sealed ahead, one call; a remainder of the last one
               goes first; nothing while the kernel still holds more than a cell
    2  read    what has come, one call, at most READ_CELLS and as far as the ring has
               room (a peer that sends without end must not keep the other links'
               cells from leaving), and open it, into the ring
    3  seal    the next body of the ring, or zeros, always copied: one cell ahead, the
               first one before the first instant; it is copied to where the cell will
               be and sealed there, so none is left
    4  draw    the next instant

A link that ends sends a given number of cells more, the sealed one among them, then a
cell that says so, and nothing after it (FIN); a link that was replaced goes on
reading until the other side has ended as well, so that what is on its way arrives.
When the other side ends first, the cells of half a second still leave, in which the
main process may say that it has more: at high rates it is later than the cells.  That it
has no more makes them no fewer: their number would show when it came to say so.

A peer that sends nothing, or takes nothing, for 8 T + 10 s is dead.

Invariant: there is no step here that mail makes or leaves out, and no instant at which
anything is done but those that the clock drew.  The body's content is never looked at.
"""

import math
from typing import Final, Protocol

from mesh.core.cell import BODY_LEN, CELL_LEN, CLOSE_BODY
from mesh.core.cellstream import CellOpener, CellSealer
from mesh.core.clock import Law, period_of
from mesh.core.crypto import address_of, memmove
from mesh.errors import RemoteProtocolError
from mesh.node.bare import DRAIN_READS, RECEIVE_MAX
from mesh.node.pacer.ring import Ring

DEAD_PERIODS: Final = 8
DEAD_SECONDS: Final = 10.0
"""A peer that sent or took nothing for 8 T + 10 s is dead: Erlang-4 gaps add up to 8 T
once in 10**15, and 10 s cover a stall of its host."""

READ_CELLS: Final = 16
"""Cells read at one instant: what was late is made up for sixteen times as fast as it
comes, and a peer that floods takes a third of the processor at 4,096 cells/s, and 4 %
at 512."""

GRACE_SECONDS: Final = 0.5
"""A main process that is busy has taken up what it heard by then.

At less than 2 cells a second that is no cell, and none is needed: the other side says that
it ends in a cell, and FIN is read an instant later, so the main process has had a gap
between the two.  One shorter than a tenth of T comes once in 1,300, and T is a second or
more.  A cell of grace would take 2 to 3 T from a link that has to be made anew, 24 s at the
slowest class, each time that a peer dies without a word."""

CLOSED: Final = 1
SILENT: Final = 2
BROKEN: Final = 3
STOPPED: Final = 4
"""Whoever drives the lanes has ended."""
LINGER_PERIODS: Final = 128
"""For the other side to end too: twice what it has left when both have agreed."""

_inbox: Final = memoryview(bytearray(CELL_LEN + READ_CELLS * CELL_LEN))
"""What a lane has read, for as long as it opens it: all lanes' in their turn, sealed."""
_cells_at: Final = [address_of(_inbox) + at * CELL_LEN for at in range(1 + READ_CELLS)]


class Wire(Protocol):
    """What a lane needs of its socket."""

    def try_send(self, data: bytes | memoryview) -> int:
        """Send what fits now; the number of octets taken."""

    def try_receive(self, limit: int) -> bytes | None:
        """What has come; None: nothing yet; b"": the end."""

    def try_receive_into(self, place: memoryview, limit: int) -> int | None:
        """What has come, into a place; None: nothing yet; 0: the end."""

    def unsent(self) -> int:
        """Octets that the kernel has not put on the wire."""

    def end_sending(self) -> None:
        """Say FIN after what was sent."""

    def close(self) -> None:
        """Close."""


class Lane:
    """A link's outside: its wire, its keys, its clock, its ring."""

    # A thousand lanes are too many for the processor's caches, and each instant finds
    # its own cold: what lies in slots is there in half as many reads.
    __slots__ = (
        "_cell", "_cell_at", "_grace", "_heard", "_heard_end", "_in_grace", "_law",
        "_left", "_linger", "_linger_seconds", "_linger_until", "_moved", "_opener",
        "_partial", "_patience", "_rest", "_ring", "_said_end", "_sealed", "_sealer",
        "_unsent", "_wire", "due", "skipped",
    )  # fmt: skip

    def __init__(
        self,
        *,
        wire: Wire,
        sealer: CellSealer,
        opener: CellOpener,
        ring: Ring,
        law: Law,
        klass: int,
        now: float,
    ) -> None:
        self._wire, self._ring, self._law = wire, ring, law
        self._sealer, self._opener = sealer, opener
        self._patience = DEAD_PERIODS * period_of(klass) + DEAD_SECONDS
        self._heard = self._moved = now
        self.due = law.due
        """The next instant."""
        self._cell = memoryview(bytearray(CELL_LEN))
        self._cell_at = address_of(self._cell)
        ring.take(self._cell_at)
        sealer.seal_over(self._cell_at)
        self._sealed = True  # the cell is one to be sent
        self._rest = b""
        self._unsent = CELL_LEN + 1
        """Octets that the kernel may hold at most: it is asked when that is too many, at
        every second instant where it holds none."""
        self._partial = b""
        self._left: int | None = None  # cells before the last one; None: no end yet
        self._grace = int(GRACE_SECONDS / period_of(klass))
        self._in_grace = False
        self._linger = False
        self._linger_until = math.inf
        self._linger_seconds = LINGER_PERIODS * period_of(klass) + self._patience
        self._said_end = False
        self._heard_end = False
        self.skipped = 0
        """Instants at which the kernel still held more than a cell."""

    def end_after(self, cells: int, *, linger: bool) -> None:
        """Send so many cells more (1 or more), then one that says the link ends.

        `linger`: hear the other side out before the connection is closed.
        """
        if self._left is None or (self._in_grace and linger):
            self._in_grace = False
            self._left = max(cells, 1) - 1
            self._linger = linger

    def instant(self, now: float) -> int:
        """Do what is to be done at `due`; 0, or why the link has ended."""
        ended = self._send(now) or self._read(now)
        if not (ended or self._sealed):
            ended = self._next(now)
        if ended:
            self.close(ended)
            return ended
        self.due = self._law.advance()
        return 0

    def close(self, reason: int) -> None:
        """End now: nothing left unread, so that the kernel says FIN and not RST."""
        for _ in range(DRAIN_READS):
            if not self._wire.try_receive(RECEIVE_MAX):
                break
        self._wire.close()
        self._sealer.wipe()
        self._opener.wipe()
        self._cell[:] = bytes(CELL_LEN)  # should its body not have been sealed
        self._ring.end(reason)

    def _send(self, now: float) -> int:
        if not (self._sealed or self._rest):
            return 0  # the last cell has left
        if self._unsent > CELL_LEN:
            self._unsent = self._wire.unsent()
        if self._unsent > CELL_LEN:
            self.skipped += 1
        elif self._rest:
            self._send_rest(now)
        else:
            took = self._wire.try_send(self._cell)
            self._sealed = False
            self._unsent += took
            if took == CELL_LEN:
                self._moved = now
                return 0
            self._rest = bytes(self._cell[took:])
        return SILENT if now > self._moved + self._patience else 0

    def _send_rest(self, now: float) -> None:
        took = self._wire.try_send(self._rest)
        self._rest = self._rest[took:]
        self._unsent += took
        if not self._rest:
            self._moved = now

    def _read(self, now: float) -> int:
        if self._heard_end:
            return 0
        room, held, place = self._ring.into_room, 0, _inbox
        if room > READ_CELLS:
            room = READ_CELLS
        if self._partial:
            held = len(self._partial)
            place[:held] = self._partial
            place = place[held:]
        came = self._wire.try_receive_into(place, CELL_LEN * room) if room else None
        if came:
            self._heard = now
            return self._open(held + came)
        if came is None:
            return SILENT if now > self._heard + self._patience else 0
        self._heard_end = True
        return self._begin_grace()

    def _begin_grace(self) -> int:
        if self._left is None:
            if not self._grace:
                return CLOSED
            self._left = self._grace
            self._in_grace = True
        elif self._left >= 0 and not self._linger:
            self._left = max(self._left, self._grace)
        return 0

    def _open(self, length: int) -> int:
        """Open the whole cells of what is in the inbox; keep the rest."""
        ring, opener, at = self._ring, self._opener, 0
        try:
            for place in _cells_at:
                if length < at + CELL_LEN:
                    break
                opener.open_into_untrusted(place, ring.place)
                ring.came()
                at += CELL_LEN
        except RemoteProtocolError:
            return BROKEN
        self._partial = bytes(_inbox[at:length]) if at < length else b""
        return 0

    def _next(self, now: float) -> int:
        """Seal the next cell, one ahead; after the last one, wait for the other side."""
        if self._left is None:
            self._ring.take(self._cell_at)
        elif self._left > 0:
            self._left -= 1
            self._ring.take(self._cell_at)
        elif self._left == 0:
            self._left = -1
            memmove(self._cell_at, CLOSE_BODY, BODY_LEN)
        else:
            return self._finish(now)
        self._sealer.seal_over(self._cell_at)
        self._sealed = True
        return 0

    def _finish(self, now: float) -> int:
        if self._rest:
            return 0
        if not self._said_end:
            self._said_end = True
            self._wire.end_sending()
            self._linger_until = now + self._linger_seconds if self._linger else now
        return CLOSED if self._heard_end or now >= self._linger_until else 0
