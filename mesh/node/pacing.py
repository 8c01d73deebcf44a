# SPDX-License-Identifier: MIT
"""The door to both ways of sending: who carries an established link's cells.

    carry(wire, session, port, ...)     runs as long as the link lives

The port is the link's inside: it gives bodies and takes bodies, and knows neither
keys nor instants.  The carrier is the link's outside: it decides *when*, and has no
branch on whether there is mail.

    clock     this process                        the pacer process (to come)
    renewal   yes, late when the process works    yes
    greedy    yes                                 no: nothing to hide from the wire

`renewal`, at each due instant and at no other: send the one cell that was sealed
ahead (one call; a remainder goes first the next time; nothing while the kernel still
holds more than a cell), then read what has come, 64 cells at most (a peer that sends
without end must not keep the others' cells from leaving), open it, hand it to the
port, take the next body, seal it, draw the next instant.

`greedy`: whatever the port has leaves at once, up to 64 cells a call, with one cell
of padding when nothing left for T.

A cell that does not open, a body that no honest peer seals, the end of the stream, or
a peer silent for 8 T + 10 s end the link; the reason is one of a few words.
"""

from collections.abc import Callable
from typing import Final, Protocol

import trio

from mesh.core.cell import CELL_LEN, PADDING
from mesh.core.clock import Clock, Renewal, period_of
from mesh.core.crypto import Entropy
from mesh.core.handshake import Session
from mesh.errors import RemoteProtocolError
from mesh.node.parking import Parking
from mesh.node.wire import RECEIVE_MAX, Outlet, Wire, receive

GREEDY_CELLS: Final = 64
"""Cells of one greedy call: past 256 KiB a call costs no less a cell."""
DEAD_PERIODS: Final = 8
DEAD_SECONDS: Final = 10.0
"""A peer that sent nothing for 8 T + 10 s is dead: Erlang-4 gaps add up to 8 T once in
10**15, and 10 s cover a stall of its host."""

CLOSED: Final = "closed"
SILENT: Final = "silent"
BROKEN: Final = "broken"


class Port(Protocol):
    """A link's inside, as its carrier sees it."""

    def next_body(self) -> bytes:
        """The next body to seal, padding when there is nothing: BODY_LEN octets."""

    def receive_body(self, body: bytes) -> None:
        """Take a body that opened; RemoteProtocolError ends the link."""

    def received(self) -> None:
        """All bodies of one read were handed over."""

    @property
    def has_data(self) -> bool:
        """The next body would not be padding (asked by `greedy` only)."""

    @property
    def finished(self) -> bool:
        """The port has sent its last body: the carrier ends."""

    on_data: Callable[[], None]
    """Called by the port when it has something to send; set by a `greedy` carrier."""


class _Carrier:
    """What both clocks share: the incoming cells."""

    def __init__(self, wire: Wire, session: Session, port: Port) -> None:
        self.wire, self.session, self.port = wire, session, port
        self.period = period_of(session.klass)
        self.heard = trio.current_time()
        self._partial = b""

    def take(self, data: bytes) -> None:
        """Open all whole cells of what has come."""
        if self._partial:
            data = self._partial + data
        whole = len(data) - len(data) % CELL_LEN
        opener, port = self.session.opener, self.port
        view = memoryview(data)
        for at in range(0, whole, CELL_LEN):
            port.receive_body(opener.open_untrusted(view[at : at + CELL_LEN]))
        self._partial = data[whole:]
        if whole:
            self.heard = trio.current_time()
            port.received()

    def read(self, wire: Wire) -> bool:
        """Take what has come, RECEIVE_MAX octets at most; False: it was the end."""
        room = RECEIVE_MAX
        while room > 0 and (data := wire.try_receive(room)) is not None:
            if not data:
                return False
            self.take(data)
            room -= len(data)
        return True

    @property
    def deadline(self) -> float:
        """The instant at which a silent peer counts as dead."""
        return self.heard + DEAD_PERIODS * self.period + DEAD_SECONDS


async def carry(wire: Wire, session: Session, port: Port, entropy: Entropy) -> str:
    """Carry the link until it ends; returns why: CLOSED, SILENT or BROKEN.

    The wire is closed and the session's keys are wiped when this returns or is
    cancelled.
    """
    try:
        if session.clock is Clock.GREEDY:
            return await _carry_greedy(_Carrier(wire, session, port))
        return await _carry_renewal(_Carrier(wire, session, port), entropy)
    except RemoteProtocolError:
        return BROKEN
    finally:
        wire.close()
        session.wipe()


async def _carry_renewal(carrier: _Carrier, entropy: Entropy) -> str:
    wire, session, port = carrier.wire, carrier.session, carrier.port
    clock = Renewal(session.klass, entropy.key(), trio.current_time())
    sealed = session.sealer.seal(PADDING)
    rest = b""
    while True:
        await trio.sleep_until(clock.due)
        if wire.unsent() <= CELL_LEN:
            if not rest:
                rest, sealed = sealed, b""
            rest = rest[wire.try_send(rest) :]
        if not carrier.read(wire):
            return CLOSED
        if trio.current_time() > carrier.deadline:
            return SILENT
        if not sealed:
            if port.finished and not rest:
                return CLOSED
            sealed = session.sealer.seal(port.next_body())
        clock.advance()


async def _carry_greedy(carrier: _Carrier) -> str:
    sender = _GreedySender(carrier)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sender.outlet.flush_forever)
        nursery.start_soon(sender.run, nursery.cancel_scope)
        nursery.start_soon(sender.tick, nursery.cancel_scope)
        try:
            while data := await receive(carrier.wire):
                carrier.take(data)
        except RemoteProtocolError:
            sender.reason = BROKEN
        nursery.cancel_scope.cancel()
    return sender.reason


class _GreedySender:
    """Parks until the port has data; a ticker pads and watches, once in each T."""

    def __init__(self, carrier: _Carrier) -> None:
        self._carrier = carrier
        self._parking = Parking()
        self._sent = True  # the first cell leaves at once
        self.outlet = Outlet(carrier.wire, self._parking.wake)
        self.reason = CLOSED
        carrier.port.on_data = self._parking.wake

    async def run(self, scope: trio.CancelScope) -> None:
        """Send until the port has finished, then cancel `scope`."""
        outlet, port = self.outlet, self._carrier.port
        seal = self._carrier.session.sealer.seal
        outlet.send(seal(port.next_body()))
        while not port.finished:
            if port.has_data and not outlet.full:
                cells = [seal(port.next_body())]
                while len(cells) < GREEDY_CELLS and port.has_data:
                    cells.append(seal(port.next_body()))
                outlet.send(b"".join(cells))
                self._sent = True
                continue
            await self._parking.park()
        scope.cancel()

    async def tick(self, scope: trio.CancelScope) -> None:
        """Send padding when nothing left for T; end with a peer that is dead."""
        outlet, port = self.outlet, self._carrier.port
        while trio.current_time() <= self._carrier.deadline:
            if not (self._sent or outlet.waiting or port.finished):
                outlet.send(self._carrier.session.sealer.seal(port.next_body()))
            self._sent = False
            await trio.sleep(self._carrier.period)
        self.reason = SILENT
        scope.cancel()
