# SPDX-License-Identifier: MIT
"""A wire that counts: TCP from a port of loopback to another one, octets both ways."""

import socket
import threading
from collections import Counter
from contextlib import suppress
from types import TracebackType
from typing import Self

READ_MAX = 65_536


class Proxy:
    """Passes on what comes; `calls` taken so far, `octets` of each way."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.towards = 0
        """The port that is called."""
        self.calls = 0
        self.octets: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._calls: list[threading.Thread] = []
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()
        for call in self._calls:
            call.join()  # its two ends have ended

    def _serve(self) -> None:
        while True:
            try:
                near = self._listener.accept()[0]
            except OSError:
                return
            self.calls += 1
            try:
                far = socket.create_connection(("127.0.0.1", self.towards))
            except OSError:
                near.close()
                continue
            there = threading.Thread(target=self._carry, args=(near, far))
            self._calls.append(there)
            there.start()

    def _carry(self, near: socket.socket, far: socket.socket) -> None:
        with near, far:
            back = threading.Thread(target=self._pass_on, args=("back", far, near))
            back.start()
            self._pass_on("out", near, far)
            back.join()

    def _pass_on(self, way: str, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while octets := source.recv(READ_MAX):
                with self._lock:
                    self.octets[way] += len(octets)
                sink.sendall(octets)
        with suppress(OSError):
            sink.shutdown(socket.SHUT_WR)
