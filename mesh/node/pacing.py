# SPDX-License-Identifier: MIT
"""The door to both ways of sending: who carries an established link's cells.

    carry(wire, session, port, ...)     runs as long as the link lives

    clock     who                                 why
    greedy    this process                        nothing to hide from the wire
    others    the pacer, a process of its own     this one works, and so ticks late

Without a pacer (tests with a fake clock) the very same lane runs here, woken by Trio.

`greedy`: whatever the port has leaves at once, up to 64 cells a call, with one cell
of padding when nothing left for T; and it ends before the next cell when this machine
may be a clone of the one that it began on (the pacer sees to the others).  Cells are
sealed and opened in buffers that all such links share, since nothing waits between a
read and the last cell of it, nor between a seal and its send; what is plaintext there
is wiped, for an idle link would keep it.
What a read brings about leaves before anything is waited for: no task is woken for it.

A cell that does not open, a body that no honest peer seals, the end of the stream, or
a peer silent, or taking nothing, for 8 T + 10 s end the link; the reason is one of a few words.
"""

from collections.abc import Callable, Mapping
from typing import Final

import trio

from mesh.core.cell import BODY_LEN, CELL_LEN
from mesh.core.cellstream import CellOpener, CellSealer
from mesh.core.clock import Clock, law_of, period_of
from mesh.core.crypto import Entropy
from mesh.core.handshake import Session
from mesh.errors import CryptoError, RemoteProtocolError
from mesh.node.bare import ZEROS
from mesh.node.pacer import lane as lanes
from mesh.node.pacer.client import GONE, Feed, put
from mesh.node.pacer.client import Pacer as Pacer
from mesh.node.pacer.lane import DEAD_PERIODS as DEAD_PERIODS
from mesh.node.pacer.lane import DEAD_SECONDS as DEAD_SECONDS
from mesh.node.pacer.lane import Lane
from mesh.node.pacer.ring import Ring, length_of
from mesh.node.parking import Parking
from mesh.node.port import GreedyPort
from mesh.node.port import Port as Port
from mesh.node.wire import RECEIVE_MAX, Outlet, SocketWire, Wire

GREEDY_CELLS: Final = 64
"""Cells of one greedy call: past 256 KiB a call costs no less a cell."""

CLOSED: Final = "closed"
SILENT: Final = "silent"
BROKEN: Final = "broken"
STALLED: Final = "stalled"
_REASONS: Final[Mapping[int, str]] = {
    lanes.CLOSED: CLOSED,
    lanes.SILENT: SILENT,
    lanes.BROKEN: BROKEN,
    lanes.STOPPED: STALLED,
    GONE: STALLED,
}


class _Room:
    """Cells side by side, or bodies, each at the beginning of a cell's place."""

    def __init__(self, cells: int) -> None:
        octets = self.octets = memoryview(bytearray(cells * CELL_LEN))
        starts = range(0, len(octets), CELL_LEN)
        self.cells = [octets[at : at + CELL_LEN] for at in starts]
        self.bodies = [octets[at : at + BODY_LEN] for at in starts]


_come: Final = _Room(RECEIVE_MAX // CELL_LEN + 1)
_opened: Final = _Room(RECEIVE_MAX // CELL_LEN + 1)
_written: Final = _Room(GREEDY_CELLS)
_sealed: Final = _Room(GREEDY_CELLS)


class _Carrier:
    """The incoming cells of a `greedy` link."""

    def __init__(self, wire: Wire, session: Session, port: GreedyPort) -> None:
        self.wire, self.session, self.port = wire, session, port
        self.period = period_of(session.klass)
        self.heard = trio.current_time()
        self._partial = b""

    def read(self) -> int | None:
        """Take in what has come, by one call; octets, None: nothing yet, 0: the end."""
        begun = len(self._partial)
        room = _come.octets
        got = self.wire.try_receive_into(room[begun:], RECEIVE_MAX)
        if got:
            room[:begun] = self._partial
            self._open_untrusted(begun + got)
        return got

    def _open_untrusted(self, length: int) -> None:
        """Open all whole cells of what has come."""
        cells = length // CELL_LEN
        end = cells * CELL_LEN
        self._partial = bytes(_come.octets[end:length])
        try:
            opened = self.session.opener.open_each_untrusted(
                _come.cells[:cells], _opened.bodies[:cells]
            )
            self.port.receive_bodies(_opened.octets[: opened * CELL_LEN])
        finally:
            _opened.octets[:end] = ZEROS[:end]
        if opened < cells:
            raise CryptoError("this is not the next cell of the link")
        if cells:
            self.heard = trio.current_time()
            self.port.received()

    @property
    def deadline(self) -> float:
        """The instant at which a silent peer counts as dead."""
        return self.heard + DEAD_PERIODS * self.period + DEAD_SECONDS


async def carry(
    wire: Wire,
    session: Session,
    port: GreedyPort,
    entropy: Entropy,
    pacer: Pacer | None = None,
    moves: Callable[[], int] = lambda: 0,
) -> str:
    """Carry the link until it ends; returns why: CLOSED, SILENT, BROKEN or STALLED.

    `moves` counts how often this machine became another one (pacer/standstill.py).
    The wire is closed and the session's keys are wiped when this returns or is
    cancelled.
    """
    try:
        if session.clock is Clock.GREEDY:
            return await _carry_greedy(_Carrier(wire, session, port), moves)
        if pacer is not None and isinstance(wire, SocketWire):
            return _REASONS[await pacer.carry(wire, session, port)]
        return _REASONS[await _carry_here(wire, session, port, entropy)]
    except RemoteProtocolError:
        return BROKEN
    finally:
        wire.close()
        session.wipe()


async def _carry_here(
    wire: Wire, session: Session, port: Port, entropy: Entropy
) -> int:
    """Run the link's lane on Trio's clock, and feed it at each instant."""
    now = trio.current_time()
    ring = Ring(bytearray(length_of(session.klass)), session.klass)
    put(ring, port)
    lane = Lane(
        wire=wire,
        sealer=CellSealer(session.sealer.surrender()),
        opener=CellOpener(session.opener.surrender()),
        ring=ring,
        law=law_of(session.clock, session.klass, entropy.key(), now),
        klass=session.klass,
        now=now,
    )
    feed = Feed(ring, port, lambda e: lane.end_after(e.cells, linger=e.linger))
    port.on_data = feed.push
    ended = 0
    try:
        while not ended:
            feed.push()
            await trio.sleep_until(lane.due)
            ended = lane.instant(trio.current_time())
            feed.pull()
    finally:
        if not ended:
            lane.close(lanes.CLOSED)
    return ended


async def _carry_greedy(carrier: _Carrier, moves: Callable[[], int]) -> str:
    sender = _GreedySender(carrier, moves)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sender.outlet.flush_forever)
        nursery.start_soon(sender.run, nursery.cancel_scope)
        nursery.start_soon(sender.tick, nursery.cancel_scope)
        try:
            await _read_forever(carrier, sender)
        except RemoteProtocolError:
            sender.reason = BROKEN
        nursery.cancel_scope.cancel()
    return sender.reason


async def _read_forever(carrier: _Carrier, sender: "_GreedySender") -> None:
    """Read until the other side ends; others have their turn after each read."""
    while True:
        sender.held = True
        try:
            got = carrier.read()
        finally:
            sender.held = False
        if got == 0:
            return
        if got:
            sender.push()
        if got == RECEIVE_MAX:  # there is more
            await trio.lowlevel.checkpoint()
            continue
        try:
            await carrier.wire.wait_readable()
        except trio.ClosedResourceError:
            return


class _GreedySender:
    """Parks until the port has data; a ticker pads and watches, once in each T."""

    def __init__(self, carrier: _Carrier, moves: Callable[[], int]) -> None:
        self._carrier = carrier
        self._moves, self._moved = moves, moves()
        self._parking = Parking()
        self._sent = True  # the first cell leaves at once
        self._begun = False
        self.held = False
        """Nobody wakes the task: it will be pushed."""
        self.outlet = Outlet(carrier.wire, self._parking.wake)
        self.reason = CLOSED
        carrier.port.on_data = self._wake

    def _wake(self) -> None:
        if not self.held:
            self._parking.wake()

    async def run(self, scope: trio.CancelScope) -> None:
        """Send until the port has finished, then cancel `scope`."""
        if not self._stood_still():
            self.outlet.send(self._seal())
        self._begun = True
        while not self._carrier.port.finished:
            if not self._send_all():
                break
            await self._parking.park()
        scope.cancel()

    def push(self) -> None:
        """Send what a read has brought about; the task sees to how the link ends."""
        if not self._begun:
            return
        if self._carrier.port.finished or not self._send_all():
            self._parking.wake()

    def _send_all(self) -> bool:
        """Send what there is and room for; False: this may be another machine."""
        outlet, port = self.outlet, self._carrier.port
        while port.has_data and not outlet.full and not port.finished:
            if self._stood_still():
                return False
            outlet.send(self._seal())
            self._sent = True
        return True

    def _seal(self) -> memoryview:
        """Seal one body, and as many more as there are and one call takes."""
        port, room, end = self._carrier.port, _written.octets, 0
        plain = len(room)  # as far as is known, should this fail
        try:
            while not end or (end < len(room) and port.has_data):
                end += port.write_bodies(room[end:])
            cells = end // CELL_LEN
            self._carrier.session.sealer.seal_each(
                _written.bodies[:cells], _sealed.cells[:cells]
            )
            plain = end
        finally:
            room[:plain] = ZEROS[:plain]
        return _sealed.octets[:end]

    def _stood_still(self) -> bool:
        """Whether this may be another machine, which must not use these keys."""
        if self._moves() == self._moved:
            return False
        self.reason = STALLED
        return True

    async def tick(self, scope: trio.CancelScope) -> None:
        """Send padding when nothing left for T; end with a peer that is dead."""
        outlet, port = self.outlet, self._carrier.port
        while trio.current_time() <= self._carrier.deadline:
            if not (self._sent or outlet.waiting or port.finished):
                if self._stood_still():
                    scope.cancel()
                    return
                outlet.send(self._carrier.session.sealer.seal(port.next_body()))
            self._sent = False
            await trio.sleep(self._carrier.period)
        self.reason = SILENT
        scope.cancel()
