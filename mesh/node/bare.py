# SPDX-License-Identifier: MIT
"""A connected socket, one system call at the instant of the call, and no event loop.

What both hands share that send cells: the node's own (wire.py adds waiting) and the
pacer, which must not load an event loop.  Nothing here ever blocks.

Buffers have fixed sizes, because the kernel's own tuning follows the load and would
show it.  Nagle is off: a cell leaves when it is sent.

What comes is read into one place and copied from there: room for RECEIVE_MAX octets is
a mapping of its own, which costs 15 us to make and to undo for each read, whatever comes.
So reading belongs to one thread of a process.  The place is wiped after each read: a
message that is long delivered is not to lie there until as much has come again.
"""

import fcntl
import socket
import sys
from contextlib import suppress
from typing import Final

RECEIVE_MAX: Final = 262_144
"""Octets of one read: 64 cells, what a greedy peer sends in one call."""
SOCKET_BUFFER: Final = 524_288
"""Octets asked of the kernel for each direction of a link; fixed, never tuned."""
SIOCOUTQNSD: Final = 0x894B
"""tcp(7)'s number of octets not yet sent: what is only unacknowledged does not count,
or a long round trip would look like a full buffer."""
DRAIN_READS: Final = 8
"""Reads before a close: twice what the kernel holds at most; a flood has no end."""
_place: Final = memoryview(bytearray(RECEIVE_MAX))
"""Where each read puts what came."""
ZEROS: Final = memoryview(bytes(RECEIVE_MAX + 4096))
"""What wipes it, and others: a cell more than one read has."""
_NONE: Final = bytes(4)
"""An int that the kernel writes over."""


class BareWire:
    """A stream socket, TCP or UNIX, which this takes over."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)  # the standard library's signature
        if sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._sock = sock
        self._fd = sock.fileno()

    def fix_buffers(self) -> None:
        """Give a link's socket its fixed buffers."""
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            self._sock.setsockopt(socket.SOL_SOCKET, option, SOCKET_BUFFER)

    @property
    def socket(self) -> socket.socket:
        """The socket itself: its credentials, or to be handed over."""
        return self._sock

    def try_send(self, data: bytes | memoryview) -> int:
        """Send what fits now; a broken connection takes everything and shows at reading."""
        try:
            return self._sock.send(data)
        except BlockingIOError:
            return 0
        except OSError:
            return len(data)

    def try_receive(self, limit: int) -> bytes | None:
        """What has come, RECEIVE_MAX at most; an error is the end, as a FIN is."""
        try:
            octets = self._sock.recv_into(_place, min(limit, RECEIVE_MAX))
        except BlockingIOError:
            return None
        except OSError:
            return b""
        data = _place[:octets].tobytes()
        _place[:octets] = ZEROS[:octets]
        return data

    def try_receive_into(self, place: memoryview, limit: int) -> int | None:
        """What has come, into a place; octets, None: nothing yet; 0: the end."""
        try:
            return self._sock.recv_into(place, limit)
        except BlockingIOError:
            return None
        except OSError:
            return 0

    def unsent(self) -> int:
        """Octets that wait in the kernel for the peer's window."""
        try:
            raw = fcntl.ioctl(self._fd, SIOCOUTQNSD, _NONE)
        except (OSError, ValueError):  # ValueError: closed
            return 0
        return int.from_bytes(raw, sys.byteorder)

    def end_sending(self) -> None:
        """Say FIN after what was sent; a connection that is gone needs none."""
        with suppress(OSError):
            self._sock.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Close; again is no error."""
        self._fd = -1
        self._sock.close()
