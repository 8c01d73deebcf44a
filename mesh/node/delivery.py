# SPDX-License-Identifier: MIT
"""Delivery: what arrived for a remailer of this node goes to its Maildir or LMTP.

    maildir:PATH           groups of up to GROUP_MAX, one thread hop a group, fsynced
    lmtp:PATH, HOST:PORT   up to CONNECTIONS_MAX kept connections, each with a
                           message's commands sent ahead behind the last one's octets

Delivered means forgotten: the record's key is overwritten once the Maildir is on the
disk, or the LMTP server has said 250.  A 5yz bounces, anything else defers the record;
a connection that ends gives its records back.  The remailer is an untrusted peer: whatever it
says, this node goes on.  Where a server does not answer, each failed connection is
an attempt for all that waits: after ATTEMPTS_MIN what is old is given up.

`end` begins nothing new; what is under way may finish while it is `busy`, so that an
end in order repeats nothing.  A Maildir on a disk that hangs does not keep the node.
"""

import socket
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final

import trio

from mesh.core.content import to_lf
from mesh.core.crypto import Entropy
from mesh.core.record import Record
from mesh.core.reply import Reply
from mesh.core.retry import is_given_up, retry_delay
from mesh.core.smtp import Finished, Outgoing, Sender, SenderClosed, SenderDialect
from mesh.node.maildir import Letter, deliver
from mesh.node.parking import Parking
from mesh.node.qmgr import QueueManager
from mesh.node.records import COLD_MAX, Records
from mesh.node.spool import Ref
from mesh.node.wire import Outlet, SocketWire, Wire, receive

GROUP_MAX: Final = 64
"""Messages of one hop to the thread: as many as one commit of the spool."""
CONNECTIONS_MAX: Final = 20
"""Connections kept to one LMTP server (DESIGN, the contract)."""
SHARE: Final = 4
"""Records that wait for each connection before another one is made: below that one
connection, with its commands sent ahead, wakes both sides less often."""
READ_MAX: Final = 65_536
NOT_WRITTEN: Final = Reply(451, "4.2.0 its Maildir cannot be written")
BROKEN: Final = Reply(451, "4.3.0 its delivery broke off")
NO_SERVER: Final = Reply(550, "5.4.1 its LMTP server does not answer")
"""When it is given up: a failure for good."""
IDLE_SECONDS: Final = 60.0
"""A connection without work is ended after this long."""
REPLY_SECONDS: Final = 600.0
"""For the reply to a final dot: RFC 5321 4.5.3.2.6."""


class MaildirDelivery:
    """One remailer's Maildir."""

    def __init__(
        self,
        *,
        maildir: Path,
        destination: str,
        qmgr: QueueManager,
        name_of: Callable[[bytes], str],
    ) -> None:
        self._maildir = maildir
        self._is_known = False
        """Its folders are durable."""
        self._qmgr = qmgr
        self._records = Records(qmgr, qmgr.queue(destination))
        self._release = partial(qmgr.release, destination)
        self._name_of = name_of
        self._parking = Parking()
        qmgr.queue(destination).wake = self._parking.wake
        self._ending = False
        self.busy = False
        """A group is on its way to the disk."""

    def end(self) -> None:
        """Begin nothing new."""
        self._ending = True

    async def run(self) -> None:
        """Deliver for ever."""
        while True:
            if self._ending or not self._records:
                await self._parking.park()
                continue
            self.busy = True
            await self._deliver(await self._records.take(GROUP_MAX))
            self.busy = False

    async def _deliver(self, group: Sequence[tuple[Ref, Record]]) -> None:
        written = 0
        try:
            with self._qmgr.guard():
                written = await self._write(group)
        except trio.Cancelled:  # the thread may be writing still
            for ref, _ in group:
                self._qmgr.doubt(ref)
            self._release([ref for ref, _ in group])
            raise
        for ref, _ in group[:written]:
            self._qmgr.delivered(ref)
        for ref, record in group[written:]:
            self._qmgr.doubt(ref)
            with self._qmgr.guard():
                replies = [NOT_WRITTEN] * len(record.recipients)
                self._qmgr.settle(ref, record, replies)

    async def _write(self, group: Sequence[tuple[Ref, Record]]) -> int:
        letters = [
            Letter(
                self._name_of(record.id),
                to_lf(record.content),
                self._qmgr.may_lie_there(ref),
            )
            for ref, record in group
        ]
        written = await trio.to_thread.run_sync(
            partial(deliver, is_known=self._is_known),
            self._maildir,
            letters,
            abandon_on_cancel=True,
        )
        self._is_known = self._is_known or written > 0
        return written


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
        self._records = Records(qmgr, self.queue)
        self._fetched: deque[tuple[Ref, Record]] = deque()
        self._fetching = Parking()
        self._address = address
        self._entropy = entropy
        self._connections: list[_Connection] = []
        self._parking = Parking()
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
        """Deliver for ever: makes connections; each of them works by itself."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._fetch_forever)
            while True:
                if not self._wants_another:
                    await self._parking.park()
                    continue
                if self.failures:
                    await self._give_up_old()
                    await trio.sleep(retry_delay(self.failures, self._entropy))
                wire = None
                with self.qmgr.guard():
                    wire = await _connect(self._address)
                if wire is None:
                    self.failures += 1
                    continue
                connection = _Connection(self, wire)
                self._connections.append(connection)
                nursery.start_soon(self._work, connection, self.failures)

    def take(self) -> tuple[Ref, Record] | None:
        """Give the next record if it is in memory; if not, have it read."""
        if self.ending:
            return None
        if self._fetched:
            return self._fetched.popleft()
        ready = self.queue.ready
        record = self.qmgr.spool.hot(ready[0]) if ready else None
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
            refs = [ready.popleft() for _ in range(min(GROUP_MAX, len(ready)))]
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

    async def _work(self, connection: "_Connection", failures: int) -> None:
        try:
            with self.qmgr.guard(connection.fail):
                await connection.run()
        finally:
            self._connections.remove(connection)
            if not connection.useful and self.failures == failures:
                self.failures += 1
            self.qmgr.release(self.destination, connection.flying)

    def _wake(self) -> None:
        for connection in self._connections:
            if not (self.queue.ready or self._fetched):
                return
            with self.qmgr.guard(connection.fail):  # whoever brings mail goes on
                connection.fill()
        if self._wants_another:
            self._parking.wake()


class _Connection:
    """One connection: reads replies, sends what may be sent, without waiting."""

    def __init__(self, delivery: LmtpDelivery, wire: Wire) -> None:
        self._delivery = delivery
        self._wire = wire
        self._outlet = Outlet(wire, self.fill)
        self._sender = Sender(dialect=SenderDialect.LMTP, helo=delivery.name)
        self._patience = trio.CancelScope()
        self.flying: dict[Ref, Record] = {}
        self.useful = False
        """The server has answered for a message."""

    async def run(self) -> None:
        """Work until the server ends, breaks the protocol, or has nothing to do."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._outlet.flush_forever)
                await self._read()
                nursery.cancel_scope.cancel()
        finally:
            self._wire.close()

    async def _read(self) -> None:
        with self._patience:
            while True:
                self._wait(REPLY_SECONDS if self.flying else IDLE_SECONDS)
                data = await receive(self._wire, READ_MAX)
                if not data:
                    return
                self._sender.receive_data(data)  # nonsense shows as SenderClosed
                if not self._attend():
                    return
                self.fill()
        if not self.flying:
            self.useful = True  # it was not needed, which is no failure of its own

    def fail(self) -> None:
        """End after a bug: it may be a message's, so each under way was tried."""
        self._patience.cancel()
        while self.flying:
            ref, record = self.flying.popitem()
            self._delivery.qmgr.settle(ref, record, [BROKEN] * len(record.recipients))

    def _wait(self, seconds: float) -> None:
        """Have patience for so long, to a second: to be exact costs more than a read."""
        deadline = trio.current_time() + seconds
        if not deadline - 1 < self._patience.deadline <= deadline:
            self._patience.deadline = deadline

    def _attend(self) -> bool:
        qmgr = self._delivery.qmgr
        while (event := self._sender.next_event()) is not None:
            if isinstance(event, SenderClosed):
                return False
            if isinstance(event, Finished):
                ref: Ref = event.token  # type: ignore[assignment]
                record = self.flying.pop(ref)
                self.useful = True
                self._delivery.failures = 0
                if qmgr.settle(ref, record, event.replies):
                    qmgr.delivered(ref)
        return True

    def fill(self) -> None:
        """Send what may be sent of what is in memory."""
        while self._sender.can_send and (taken := self._delivery.take()) is not None:
            self._send(*taken)
        self._push()

    def _send(self, ref: Ref, record: Record) -> None:
        if not self.flying:  # idle until now: it is a reply that is waited for
            self._wait(REPLY_SECONDS)
        self.flying[ref] = record
        self._sender.send(
            Outgoing(ref, record.reverse_path, record.recipients, record.content, None)
        )

    def _push(self) -> None:
        while self._sender.pending and not self._outlet.full:
            self._outlet.send(self._sender.take(READ_MAX * 4))


async def _connect(address: Path | tuple[str, int]) -> SocketWire | None:
    """Connect to the server; None: it does not answer now."""
    try:
        stream: trio.SocketStream
        if isinstance(address, Path):
            stream = await trio.open_unix_socket(str(address))
        else:
            stream = await trio.open_tcp_stream(*address)
    except OSError:
        return None
    return SocketWire(socket.socket(fileno=stream.socket.detach()))
