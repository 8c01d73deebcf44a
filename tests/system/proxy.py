# SPDX-License-Identifier: MIT
"""A bad network between real nodes: a thread that forwards TCP connections, and how.

    pieces    at most so many octets a send, drawn each time: cells split anywhere
    late      seconds, drawn for each read: nothing overtakes, as in TCP, so that what
              was lost and sent again looks the same
    held      nothing is read: the sender's kernel fills up
    narrow    octets a second and direction

Peers dial the port that `add` gives, and reach the one that it leads to.  `seen` has
when octets came, from which dialler's connection and which end.
"""

import random
import selectors
import socket
import threading
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Self

READ_LEN = 65_536
TURN_SECONDS = 0.005
WINDOW = 16_384
"""Octets that a sender may have on the way to a reader that does not read."""


@dataclass
class Way:
    """One direction of one connection."""

    near: socket.socket
    far: socket.socket
    port: int
    """The one that was dialled."""
    dialler: bool
    """From the dialler."""
    waiting: deque[tuple[float, bytes]] = field(default_factory=deque)
    read_at: float = 0.0
    ended: bool = False


class Proxy:
    """All connections between the nodes of a test."""

    def __init__(self) -> None:
        self.pieces = 0
        self.late = 0.0
        self.held = False
        self.narrow = 0.0
        self.connections = 0
        self.seen: list[tuple[float, int, bool, int]] = []
        """When, which port, from its dialler, how many octets."""
        self._random = random.Random(1)  # noqa: S311
        self._doors: dict[socket.socket, tuple[int, int]] = {}
        self._ways: list[Way] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="proxy")
        self.trouble: BaseException | None = None

    def add(self, inner: int) -> int:
        """Give a port that leads to this one."""
        door = socket.socket()
        door.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, WINDOW)
        door.bind(("127.0.0.1", 0))
        door.listen()
        door.setblocking(False)
        port = int(door.getsockname()[1])
        self._doors[door] = port, inner
        return port

    def smooth(self) -> None:
        """Be a good network again."""
        self.pieces, self.late, self.held, self.narrow = 0, 0.0, False, 0.0

    @property
    def open(self) -> int:
        """Connections that have not ended."""
        return sum(not way.ended for way in self._ways if way.dialler)

    def octets(self, since: float, until: float = float("inf")) -> int:
        """How many came, both ways, in a stretch of time.monotonic()."""
        return sum(count for at, _, _, count in self.seen if since <= at < until)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        for way in self._ways:
            way.near.close()
        for door in self._doors:
            door.close()
        assert self.trouble is None, self.trouble

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                self._turn()
        except Exception as error:
            self.trouble = error

    def _turn(self) -> None:
        living = [way for way in self._ways if not way.ended]
        by_time = self.held or self.narrow  # and not when something is there
        readable = [] if by_time else [way.near for way in living]
        with selectors.SelectSelector() as waiting:
            for sock in (*self._doors, *readable):
                waiting.register(sock, selectors.EVENT_READ)
            ready = {key.fileobj for key, _ in waiting.select(TURN_SECONDS)}
        for door in self._doors:
            if door in ready:
                self._accept(door)
        for way in living:
            if way.near in ready or (self.narrow and not self.held):
                self._read(way)
            self._write(way)

    def _accept(self, door: socket.socket) -> None:
        near, _ = door.accept()
        port, inner = self._doors[door]
        far = socket.socket()
        far.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, WINDOW)
        try:
            far.connect(("127.0.0.1", inner))
        except OSError:  # nobody is there yet
            near.close()
            far.close()
            return
        for sock in (near, far):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setblocking(False)
        self.connections += 1
        self._ways += [Way(near, far, port, True), Way(far, near, port, False)]

    def _read(self, way: Way) -> None:
        limit, now = READ_LEN, time.monotonic()
        if self.narrow:
            limit = int(self.narrow * min(now - way.read_at, 10 * TURN_SECONDS))
            if not limit:
                return
        way.read_at = now
        try:
            data = way.near.recv(limit)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            self.seen.append((now, way.port, way.dialler, len(data)))
            way.waiting.append((now + self._random.random() * self.late, data))
        else:
            self._end(way)

    def _end(self, way: Way) -> None:
        """What has come still goes; then this direction has ended."""
        way.ended = True
        for _, data in way.waiting:
            with suppress(OSError):
                way.far.send(data)
        way.waiting.clear()
        with suppress(OSError):
            way.far.shutdown(socket.SHUT_WR)

    def _write(self, way: Way) -> None:
        while way.waiting and way.waiting[0][0] <= time.monotonic():
            due, data = way.waiting.popleft()
            size = self._random.randint(1, self.pieces) if self.pieces else READ_LEN
            try:
                sent = way.far.send(data[:size])
            except BlockingIOError:
                sent = 0
            except OSError:
                return
            if sent < len(data):
                way.waiting.appendleft((due, data[sent:]))
            if not sent:
                return
