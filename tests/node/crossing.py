# SPDX-License-Identifier: MIT
"""Connections between two half nodes, driven by hand: each cell leaves when we say so.

Ports, peers and links are the node's own; the lane, its clock and the network are ours,
so that cells of several connections may pass one another in any order, while those of
one never do.
"""

from collections import deque
from collections.abc import Callable

from mesh.core.cell import CLOSE_BODY
from mesh.core.clock import Clock
from mesh.core.handshake import Session
from mesh.errors import RemoteProtocolError
from mesh.node.inside import Port
from mesh.node.peer import Peer
from mesh.node.port import Ending
from tests.harness import Half, sessions

NEVER = float("inf")


class Tip:
    """One end of a connection: a port, and what is on its way from it."""

    def __init__(self, half: Half, session: Session) -> None:
        known = session.peer
        self.peer: Peer = half.exchange.peer(known.name, known.identity)
        self.port = Port(self.peer, session, NEVER)
        self.peer.admit(self.port)
        self.other: Tip
        self.way: deque[bytes] = deque()
        self.ending: Ending | None = None
        self.ended = False
        self.broken = False
        """By what the other side said."""
        self._left = 0
        self._fin = False  # its last cell has left

    @property
    def over(self) -> bool:
        """Nothing comes from here any more."""
        return (self._fin or self.ended) and not self.way

    def send(self) -> None:
        """An instant: one cell leaves."""
        self._see()
        if self.ended or self._fin:
            return
        if self.ending is None and (ending := self.port.ending) is not None:
            self.ending, self._left = ending, ending.cells
        if self.ending is None or self._left > 0:
            self._left -= 1
            self.way.append(self.port.next_body())
        else:
            self._fin = True
            self.way.append(CLOSE_BODY)
        self._see()

    def receive(self) -> None:
        """An instant: one cell that has come is taken, or the end of the connection."""
        if self.ended:
            self.other.way.clear()
        elif self.other.way:
            try:
                self.port.receive_body(self.other.way.popleft())
                self.port.received()
            except RemoteProtocolError:
                self.broken = True
                self.port.scope.cancel()
        elif self.other.over:
            self.port.scope.cancel()  # a lane has half a second more, which says nothing
        self._see()

    def die(self) -> None:
        """The connection ends here, now."""
        self.port.scope.cancel()
        self._see()

    def _see(self) -> None:
        lingers = self.ending is not None and self.ending.linger
        done = self._fin and (self.other.over or not lingers)
        if (done or self.port.scope.cancel_called) and not self.ended:
            self.ended = True
            self.peer.ended(self.port)


class Cord:
    """A connection, by its two ends."""

    def __init__(self, near: Half, far: Half, counter: int) -> None:
        """`near` has dialled."""
        ours, theirs = sessions(
            near.name, far.name, clock=Clock.RENEWAL, counter=counter
        )
        self.counter = counter
        self.near, self.far = Tip(near, ours), Tip(far, theirs)
        self.near.other, self.far.other = self.far, self.near
        self.tips = (self.near, self.far)

    @property
    def ended(self) -> bool:
        return self.near.ended and self.far.ended

    def cut(self) -> None:
        """What is on its way is lost; each end hears so when it looks."""
        for tip in self.tips:
            tip.way.clear()

            def nothing(tip: Tip = tip) -> None:
                tip.port.scope.cancel()
                tip._see()

            tip.send = tip.receive = nothing  # type: ignore[method-assign]

    def step(self, draw: Callable[[int], int]) -> None:
        """One thing that may happen next."""
        tip = self.tips[draw(2)]
        (tip.send, tip.receive)[draw(2)]()

    def turn(self) -> None:
        """All that is on its way arrives, and a cell each way."""
        for tip in self.tips:
            tip.send()
        for tip in self.tips:
            while tip.other.way and not tip.ended:
                tip.receive()
            if tip.other.over:
                tip.receive()
