# SPDX-License-Identifier: MIT
"""`mesh-sendmail -bs`: a dialogue on standard input and output, carried to the node.

    standard input -> the local socket     at its end the node hears that, and answers
    the local socket -> standard output    until the node has ended, or nobody reads

A module of its own: whoever hands over a message need not load it.
"""

import os
from _socket import SHUT_WR
from _socket import socket as Socket  # noqa: N812  # a class with a small name
from select import POLLIN, POLLOUT, poll, select
from typing import Final

from mesh.cli.submit import NodeDownError, connect
from mesh.errors import TryLaterError

READ_MAX: Final = 1_048_576


def carry(path: str) -> int:
    """Carry until either side ends; TryLaterError when nobody answers, OSError."""
    try:
        sock = connect(path)
    except NodeDownError:
        _write(b"421 the node does not run\r\n")
        raise TryLaterError("the node does not run: start it, or use -bm") from None
    sock.setblocking(False)
    try:
        _carry(sock)
    finally:
        sock.close()
    return 0


def _carry(sock: Socket) -> None:
    waiting = b""
    is_open = True
    while True:
        watched = poll()
        watched.register(sock.fileno(), POLLIN | (POLLOUT if waiting else 0))
        if is_open and not waiting:
            watched.register(0, POLLIN)
        ready = dict(watched.poll())
        if 0 in ready:
            waiting = os.read(0, READ_MAX)
            if not waiting:
                is_open = False
                sock.shutdown(SHUT_WR)
        state = ready.get(sock.fileno(), 0)
        octets: bytes | None = None
        try:
            if state & POLLOUT:
                waiting = waiting[sock.send(waiting) :]
            if state & ~POLLOUT:
                octets = sock.recv(READ_MAX)
        except BrokenPipeError:  # what it said before it left is still to be read
            waiting, is_open = b"", False
        except ConnectionResetError:
            return
        if octets == b"":
            return
        _write(octets or b"")


def _write(octets: bytes) -> None:
    """Write all, also where the other end does not wait; OSError when nobody reads."""
    rest = memoryview(octets)
    while rest:
        try:
            rest = rest[os.write(1, rest) :]
        except BlockingIOError:
            select([], [1], [])
