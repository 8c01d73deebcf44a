# SPDX-License-Identifier: MIT
"""Delivery by LMTP: what arrived for a remailer of this node goes to its server.

    up to CONNECTIONS_MAX kept connections, each with a message's commands sent ahead
    behind the last one's octets; one task serves them all (pump.py), a call for each
    read, in which replies are judged and the next message goes out

    250 to the text          forgotten: the record's key is overwritten
    5yz                      a bounce
    anything else            deferred
    a connection that ends   gives its records back
    a bug in one             ends it; each record under way counts as tried

The remailer is an untrusted peer: whatever it says, this node goes on.  Where a server
does not answer, each failed connection is an attempt for all that waits: after
ATTEMPTS_MIN what is old is given up.  Deadlines are looked at when the first of them
comes, and not set anew for each read.

`end` begins nothing new; what is under way may finish while it is `busy`, so that an
end in order repeats nothing.
"""

import socket
from collections import deque
from pathlib import Path
from typing import Final

import trio

from mesh.core.crypto import Entropy
from mesh.core.record import Record
from mesh.core.reply import Reply
from mesh.core.retry import is_given_up, retry_delay
from mesh.core.smtp import Finished, Outgoing, Sender, SenderClosed, SenderDialect
from mesh.node.bare import BareWire
from mesh.node.parking import Parking
from mesh.node.pump import READ, WRITE, Pump
from mesh.node.qmgr import QueueManager
from mesh.node.records import COLD_MAX, Records
from mesh.node.spool import Ref
from mesh.node.waiting import NEVER

LOOK_MAX: Final = 64
"""Heads read at once of what may be given up."""
CONNECTIONS_MAX: Final = 20
"""Connections kept to one LMTP server (DESIGN, the contract)."""
SHARE: Final = 4
"""Records that wait for each connection before another one is made: below that one
connection, with its commands sent ahead, wakes both sides less often."""
READ_MAX: Final = 65_536
SEND_MAX: Final = 262_144
"""Octets offered to the kernel in one call."""
BROKEN: Final = Reply(451, "4.3.0 its delivery broke off")
NO_SERVER: Final = Reply(550, "5.4.1 its LMTP server does not answer")
"""When it is given up: a failure for good."""
IDLE_SECONDS: Final = 60.0
"""A connection without work is ended after this long."""
REPLY_SECONDS: Final = 600.0
"""For the reply to a final dot: RFC 5321 4.5.3.2.6."""


class LmtpDelivery:
    """One remailer's LMTP server and the connections kept to it."""

    def __init__(
        self,
        *,
        address: Path | tuple[str, int],
        destination: str,
        name: str,
        qmgr: QueueManager,
        entropy: Entropy,
    ) -> None:
        self.name = name
        self.destination = destination
        self.qmgr = qmgr
        self.queue = qmgr.queue(destination)
        self.queue.wake = self._wake
        self.pump = Pump(qmgr.guard)
        self._records = Records(qmgr, self.queue)
        self._fetched: deque[tuple[Ref, Record]] = deque()
        self._fetching = Parking()
        self._address = address
        self._entropy = entropy
        self._connections: list[_Connection] = []
        self.free: dict[_Connection, None] = {}
        """Those that may send now and found nothing to send, the last one last."""
        self._parking = Parking()
        self._watching = Parking()
        self._look_at = NEVER
        self.failures = 0
        """Times, one after another, that connections brought no answer: what was made
        side by side and ends at once counts once."""
        self.ending = False

    def end(self) -> None:
        """Begin nothing new."""
        self.ending = True

    @property
    def busy(self) -> bool:
        """A message is with the server and its reply has not come."""
        return any(connection.flying for connection in self._connections)

    async def run(self) -> None:
        """Deliver for ever: makes connections; the pump's one task serves them all."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.pump.run)
                nursery.start_soon(self._fetch_forever)
                nursery.start_soon(self._end_overdue)
                await self._connect_forever()
        finally:
            for connection in list(self._connections):
                connection.end()

    async def _connect_forever(self) -> None:
        while True:
            if not self._wants_another:
                await self._parking.park()
                continue
            if self.failures:
                await self._give_up_old()
                await trio.sleep(retry_delay(self.failures, self._entropy))
            served = False
            with self.qmgr.guard():
                wire = await _connect(self._address)
                if wire is not None:
                    served = self._begin(wire)
            if not served:
                self.failures += 1

    def _begin(self, wire: BareWire) -> bool:
        """Have a connection served; where that is a bug its socket is closed."""
        with self.qmgr.guard(wire.close):
            self._connections.append(_Connection(self, wire))
            return True
        return False

    def take(self) -> tuple[Ref, Record] | None:
        """Give the next record if it is in memory; if not, have it read."""
        if self.ending:
            return None
        if self._fetched:
            return self._fetched.popleft()
        ready = self.queue.ready
        if not ready:
            return None
        record = self.qmgr.spool.hot(ready[0])
        if record is None:
            self._fetching.wake()
            return None
        return ready.popleft(), record

    async def _fetch_forever(self) -> None:
        """Read what is not in memory any more, some records in one hop."""
        while True:
            ready = self.queue.ready
            if self._fetched or not ready or self.qmgr.spool.hot(ready[0]):
                await self._fetching.park()
                continue
            self._fetched += await self._records.take(COLD_MAX)
            self._wake()

    async def _give_up_old(self) -> None:
        """Let go of what has waited too long: the oldest are about the first."""
        ready, spool = self.queue.ready, self.qmgr.spool
        if not self._connections:  # a server that was there a moment ago
            ready.extendleft(ref for ref, _ in reversed(self._fetched))
            self._fetched.clear()
        kept: list[Ref] = []
        while ready and not kept:
            refs = [ready.popleft() for _ in range(min(LOOK_MAX, len(ready)))]
            for ref, head in zip(refs, await spool.heads(refs), strict=True):
                if head is None:
                    self.qmgr.unreadable(ref)
                elif is_given_up(self.failures, spool.running_seconds - head.accepted):
                    self.qmgr.settle(ref, head, [NO_SERVER] * len(head.recipients))
                else:
                    kept.append(ref)
        ready.extendleft(reversed(kept))

    @property
    def _wants_another(self) -> bool:
        open_ = len(self._connections)
        if self.ending:
            return False
        waiting = len(self.queue.ready) + len(self._fetched)
        return open_ < CONNECTIONS_MAX and waiting > open_ * SHARE

    def _wake(self) -> None:
        # The one that was busy last: under a small load the others end by being idle.
        for connection in reversed(tuple(self.free)):
            if not (self.queue.ready or self._fetched):
                return
            with connection.guard:  # whoever brings mail goes on
                connection.fill()
        if self._wants_another:
            self._parking.wake()

    def ended(self, connection: "_Connection") -> None:
        """A connection is closed: what it had goes another time."""
        self._connections.remove(connection)
        self.free.pop(connection, None)
        if not connection.useful and self.failures == connection.failures:
            self.failures += 1
        self.qmgr.release(self.destination, connection.flying)

    async def _end_overdue(self) -> None:
        """End each connection whose time is over."""
        while True:
            now = trio.current_time()
            for connection in list(self._connections):
                if connection.deadline <= now:
                    with self.qmgr.guard():
                        connection.expire()
            deadlines = [connection.deadline for connection in self._connections]
            self._look_at = min(deadlines, default=NEVER)
            with trio.move_on_at(self._look_at):
                await self._watching.park()

    def watch(self, deadline: float) -> None:
        """Look at this time or before; most are later than what is looked at anyway."""
        if deadline < self._look_at:
            self._look_at = deadline
            self._watching.wake()


class _Connection:
    """One connection: reads replies, sends what may be sent, without waiting."""

    def __init__(self, delivery: LmtpDelivery, wire: BareWire) -> None:
        self._delivery = delivery
        self._wire = wire
        self._sender = Sender(dialect=SenderDialect.LMTP, helo=delivery.name)
        self._rest: bytes | memoryview = b""
        """What the kernel had no room for."""
        self._is_open = True
        self._since = trio.current_time()
        self.flying: dict[Ref, Record] = {}
        self.failures = delivery.failures
        """Those before this one."""
        self.useful = False
        """The server has answered for a message."""
        self.guard = delivery.qmgr.guard(self.drop)
        self._seat = delivery.pump.add(wire.socket, self)
        delivery.watch(self.deadline)
        delivery.free[self] = None

    @property
    def deadline(self) -> float:
        """When patience with the server, or with being idle, is over."""
        return self._since + (REPLY_SECONDS if self.flying else IDLE_SECONDS)

    def serve(self, events: int) -> None:
        """Send what the kernel had no room for; read what has come."""
        if events & WRITE:
            self._push()
        if events & ~WRITE:
            self._read()

    def _read(self) -> None:
        data = self._wire.try_receive(READ_MAX)
        if data is None:
            return
        self._since = trio.current_time()
        self._sender.receive_data(data)  # nonsense shows as SenderClosed
        if not data or not self._attend():
            self.end()
            return
        self.fill()
        if not self.flying:
            self._delivery.watch(self.deadline)

    def expire(self) -> None:
        """End: nothing came for so long."""
        if not self.flying:
            self.useful = True  # it was not needed, which is no failure of its own
        self.end()

    def drop(self) -> None:
        """End after a bug: it may be a message's, so each under way was tried."""
        try:
            while self.flying:
                ref, record = self.flying.popitem()
                replies = [BROKEN] * len(record.recipients)
                self._delivery.qmgr.settle(ref, record, replies)
        finally:
            self.end()

    def end(self) -> None:
        """Close; again is no error."""
        if self._is_open:
            self._is_open = False
            self._seat.leave()
            try:
                self._wire.close()
            finally:
                self._delivery.ended(self)

    def _attend(self) -> bool:
        delivery = self._delivery
        while (event := self._sender.next_event()) is not None:
            if isinstance(event, SenderClosed):
                return False
            if isinstance(event, Finished):
                ref: Ref = event.token  # type: ignore[assignment]
                record = self.flying.pop(ref)
                self.useful = True
                delivery.failures = 0
                if delivery.qmgr.settle(ref, record, event.replies):
                    delivery.qmgr.delivered(ref)
        return True

    def fill(self) -> None:
        """Send what may be sent of what is in memory."""
        sender, delivery = self._sender, self._delivery
        delivery.free.pop(self, None)
        while sender.can_send:
            taken = delivery.take()
            if taken is None:
                delivery.free[self] = None
                break
            self._send(*taken)
        self._push()

    def _send(self, ref: Ref, record: Record) -> None:
        if not self.flying:  # idle until now: it is a reply that is waited for
            self._since = trio.current_time()
        self.flying[ref] = record
        self._sender.send(
            Outgoing(ref, record.reverse_path, record.recipients, record.content, None)
        )

    def _push(self) -> None:
        """Send until the kernel has no room."""
        while data := self._rest or self._sender.take(SEND_MAX):
            sent = self._wire.try_send(data)
            if sent < len(data):
                self._rest = memoryview(data)[sent:]
                self._seat.want(READ | WRITE)
                return
            self._rest = b""
        self._seat.want(READ)


async def _connect(address: Path | tuple[str, int]) -> BareWire | None:
    """Connect to the server; None: it does not answer now."""
    try:
        stream: trio.SocketStream
        if isinstance(address, Path):
            stream = await trio.open_unix_socket(str(address))
        else:
            stream = await trio.open_tcp_stream(*address)
    except OSError:
        return None
    return BareWire(socket.socket(fileno=stream.socket.detach()))
