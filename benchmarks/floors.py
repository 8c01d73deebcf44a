# SPDX-License-Identifier: MIT
"""What each stage of a message runs against: the kernel, SQLite, the cipher, the disk.

    calls       a read and a write of one short reply on a local socket
    aead        ChaCha20-Poly1305 as a node has it, 4 KiB in one call
    tcp         octets through one send and one read of a loopback connection
    insert      the least that SQLite asks for as many octets in one row of a WAL,
                without any sync
    sync        so many octets appended to a file, and fdatasync: wall time

CPU is that of this thread, user and kernel.  Each is a median of some tries.
"""

import os
import socket
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import apsw

from mesh.core.crypto import NONCE_LEN, SystemEntropy, seal
from mesh.node.wire import SocketWire

TRIES: Final = 5
REPLY: Final = b"250 2.0.0 ok\r\n"
SETUP: Final = """
pragma page_size = 32768; pragma journal_mode = wal; pragma synchronous = off;
pragma locking_mode = exclusive; pragma wal_autocheckpoint = 0;
create table rows (id integer primary key, body blob);
"""


def _timed(work: Callable[[], object], times: int, clock: Callable[[], float]) -> float:
    """Microseconds of one call."""
    found = []
    for _ in range(TRIES):
        began = clock()
        for _ in range(times):
            work()
        found.append((clock() - began) / times * 1e6)
    return statistics.median(found)


def calls(times: int = 2000) -> float:
    """One write and one read of a reply."""
    near, far = socket.socketpair()
    with near, far:

        def once() -> None:
            near.send(REPLY)
            far.recv(65_536)

        return _timed(once, times, time.thread_time)


def aead(octets: int = 4096, times: int = 2000) -> float:
    """Seal so many octets in one call."""
    entropy = SystemEntropy()
    key, text = entropy.key(), entropy.octets(octets)
    nonce = bytes(NONCE_LEN)
    return _timed(lambda: seal(key, nonce, text), times, time.thread_time)


def tcp_pair() -> tuple[SocketWire, SocketWire]:
    """Make a loopback connection as a link's sockets are."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        near = socket.create_connection(server.getsockname())
        far = server.accept()[0]
    ends = SocketWire(near), SocketWire(far)
    for end in ends:
        end.fix_buffers()
    return ends


def tcp(octets: int, times: int = 300) -> tuple[float, float]:
    """Send so many octets at once, and read them: microseconds of either."""
    near, far = (end.socket for end in tcp_pair())
    data, place = bytes(octets), bytearray(octets)
    spent = [0.0, 0.0]
    with near, far:
        far.setblocking(True)  # the standard library's signature
        near.setblocking(True)
        for _ in range(times):
            began = time.thread_time()
            near.sendall(data)
            middle = time.thread_time()
            left = octets
            while left:
                left -= far.recv_into(place, left)
            spent[0] += middle - began
            spent[1] += time.thread_time() - middle
    return spent[0] / times * 1e6, spent[1] / times * 1e6


def insert(folder: Path, octets: int, times: int = 100) -> float:
    """Put so many octets into one row."""
    body = bytes(octets)
    database = apsw.Connection(str(folder / f"floor-{octets}.db"))
    try:
        database.execute(SETUP).fetchall()
        statement = "insert into rows (body) values (?)"
        return _timed(
            lambda: database.execute(statement, (body,)), times, time.thread_time
        )
    finally:
        database.close()


def sync(folder: Path, octets: int, times: int = 20) -> float:
    """Append so many octets, and have them on the disk."""
    body = bytes(octets)
    path = folder / f"floor-{octets}"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT)
    try:

        def once() -> None:
            os.write(fd, body)
            os.fdatasync(fd)

        return _timed(once, times, time.perf_counter)
    finally:
        os.close(fd)
        path.unlink()
