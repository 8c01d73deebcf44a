# SPDX-License-Identifier: MIT
"""A connected socket that never makes its caller wait: the hand that sends and reads.

`try_send` and `try_receive` do one system call at the instant at which they are
called, so that a clock can decide when; the two `wait_` calls are for those who have
none.  `Outlet` adds a bounded line of octets that did not fit: it sends what it can at
once, without a task switch, and a flusher task sends the rest when the kernel has room.
The system calls themselves are bare.py's, which the pacer uses without an event loop.
"""

from collections.abc import Callable
from typing import Final, Protocol

import trio

from mesh.node.bare import (
    DRAIN_READS as DRAIN_READS,
)
from mesh.node.bare import (
    RECEIVE_MAX as RECEIVE_MAX,
)
from mesh.node.bare import (
    SOCKET_BUFFER as SOCKET_BUFFER,
)
from mesh.node.bare import (
    BareWire,
)
from mesh.node.parking import Parking

OUTLET_MAX: Final = 1_048_576
"""Octets that may wait in an Outlet before its owner must stop adding."""
FLUSH_MAX: Final = 262_144
"""Octets offered to the kernel in one call: half of its buffer."""


class Wire(Protocol):
    """One end of a connection; a fake one in the tests."""

    def try_send(self, data: bytes | memoryview) -> int:
        """Send what fits now; the number of octets taken, 0 when none."""

    def try_receive(self, limit: int) -> bytes | None:
        """What has come, at most `limit`; None: nothing yet; b"": the end."""

    def try_receive_into(self, place: memoryview, limit: int) -> int | None:
        """What has come, at most `limit`, into a place; None: nothing yet; 0: the end."""

    def unsent(self) -> int:
        """Octets that the kernel holds and has not put on the wire."""

    def end_sending(self) -> None:
        """Say FIN after what was sent; reading goes on."""

    async def wait_readable(self) -> None:
        """Return when something has come or the connection has ended."""

    async def wait_writable(self) -> None:
        """Return when `try_send` would take something, or the connection has ended."""

    def close(self) -> None:
        """Close; again is no error."""


class SocketWire(BareWire):
    """A Wire over a stream socket, TCP or UNIX; takes the socket over."""

    async def wait_readable(self) -> None:
        """Park until readable."""
        if self._sock.fileno() >= 0:
            await trio.lowlevel.wait_readable(self._sock)

    async def wait_writable(self) -> None:
        """Park until writable."""
        if self._sock.fileno() >= 0:
            await trio.lowlevel.wait_writable(self._sock)

    def close(self) -> None:
        """Close and wake whoever waits."""
        if self._sock.fileno() >= 0:
            trio.lowlevel.notify_closing(self._sock)
        super().close()


async def receive(wire: Wire, limit: int = RECEIVE_MAX) -> bytes:
    """Return the next octets, b"" at the end; tries first and waits only then.

    Others always get their turn in between: one who sends without end, a stranger
    too, would stop every link of the node.
    """
    data = wire.try_receive(limit)
    if data is not None:
        await trio.lowlevel.checkpoint()
        return data
    while data is None:
        try:
            await wire.wait_readable()
        except trio.ClosedResourceError:
            return b""
        data = wire.try_receive(limit)
    return data


async def receive_exactly(wire: Wire, length: int) -> bytes | None:
    """Return just so many octets and leave what follows unread; None: they never came."""
    parts = []
    while length > 0:
        data = await receive(wire, min(length, RECEIVE_MAX))
        if not data:
            return None
        parts.append(data)
        length -= len(data)
    return b"".join(parts)


def close_quietly(wire: Wire) -> None:
    """Close with nothing left unread, so that the kernel says FIN and not RST."""
    for _ in range(DRAIN_READS):
        if not wire.try_receive(RECEIVE_MAX):
            break
    wire.close()


class Outlet:
    """The sending side of a wire for those without a clock."""

    def __init__(self, wire: Wire, on_room: Callable[[], None] = lambda: None) -> None:
        self._wire = wire
        self._on_room = on_room
        self._rest = bytearray()
        self._parking = Parking()
        self._drained = Parking()

    @property
    def waiting(self) -> int:
        """Octets that the kernel has not taken."""
        return len(self._rest)

    @property
    def full(self) -> bool:
        """The owner should stop adding until `on_room` is called."""
        return len(self._rest) >= OUTLET_MAX

    def send(self, data: bytes | memoryview) -> None:
        """Send at once what fits; keep a copy of the rest, in order."""
        if not self._rest:
            sent = self._wire.try_send(data)
            if sent == len(data):
                return
            data = data[sent:]
        self._rest += data
        self._parking.wake()

    async def flush_forever(self) -> None:
        """Send the rest when the kernel has room: a task beside the reader's."""
        while True:
            if not self._rest:
                await self._parking.park()
                continue
            try:
                await self._wire.wait_writable()
            except trio.ClosedResourceError:
                return
            self.flush()

    def flush(self) -> None:
        """Send of the rest what fits now; for those without a flusher (pump.py)."""
        was_full = self.full
        with memoryview(self._rest) as rest, rest[:FLUSH_MAX] as some:
            sent = self._wire.try_send(some)
        del self._rest[:sent]
        if was_full and not self.full:
            self._on_room()
        if not self._rest:
            self._drained.wake()

    async def drained(self) -> None:
        """Wait until the kernel has taken everything (one task may wait)."""
        while self._rest:
            await self._drained.park()
