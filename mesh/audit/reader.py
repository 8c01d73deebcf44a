# SPDX-License-Identifier: MIT
"""A port that only reads: what a mesh port must look like to whoever is not listed.

    accepted    read and throw away, send nothing; close a while after the other side
                does, or 60 to 180 s after the accept (drawn then)

It opens no envelope and knows no key, so nothing that it does can depend on what is
sent.  Sockets, buffers, the number of strangers at once and the instants of its looks
(mesh/node/looks.py) are a node's, so a difference that the prober finds is one of what
is done with the octets.

With a greeting it is the control: a port that everybody can tell.

    python -m mesh.audit.reader HOST:PORT [GREETING]

Runs until it is ended; `reader: ready` on standard error.
"""

import contextlib
import os
import socket
import sys
from typing import Final

import trio

from mesh.core.crypto import Entropy, SystemEntropy
from mesh.core.handshake import silence_duration
from mesh.node.listener import UNPROVEN_MAX, bind
from mesh.node.looks import Looks
from mesh.node.wire import SocketWire, close_quietly

READY: Final = b"reader: ready\n"


class Reader:
    """Reads on bound sockets."""

    def __init__(self, entropy: Entropy, greeting: bytes = b"") -> None:
        self._entropy = entropy
        self._greeting = greeting
        self._scopes: dict[object, trio.CancelScope] = {}

    async def run(self, sock: socket.socket) -> None:
        """Accept on one socket, for ever."""
        sock.setblocking(False)
        async with trio.open_nursery() as nursery:
            while True:
                await trio.lowlevel.wait_readable(sock)
                with contextlib.suppress(OSError):
                    accepted, _ = sock.accept()
                    wire = SocketWire(accepted)
                    wire.fix_buffers()
                    nursery.start_soon(self._serve, wire)

    async def _serve(self, wire: SocketWire) -> None:
        until = trio.current_time() + silence_duration(self._entropy)
        looks = Looks(wire, self._entropy)
        while len(self._scopes) >= UNPROVEN_MAX:
            self._scopes.pop(next(iter(self._scopes))).cancel()
        scope = self._scopes[wire] = trio.CancelScope(deadline=until)
        try:
            with scope:
                if self._greeting:
                    wire.try_send(self._greeting)
                await looks.ignore()
        finally:
            self._scopes.pop(wire, None)
            close_quietly(wire)


def main() -> None:
    """Read on the address that the command line names."""
    address, *greeting = sys.argv[1:]
    (sock,) = bind([address])
    reader = Reader(SystemEntropy(), "".join(greeting).encode())
    os.write(sys.stderr.fileno(), READY)
    trio.run(reader.run, sock)


if __name__ == "__main__":
    main()
