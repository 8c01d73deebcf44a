# SPDX-License-Identifier: MIT
"""The control socket while a node starts: `starting`, exit code 75, to whoever asks.

    lock taken      the socket bound, a stale one replaced; a thread answers every
                    question alike, while the spool is read, which may take a minute
    node started    `take`: the same socket goes to control.py, and who has just
                    connected is answered there
    not started,
    or ended        `close`: the socket is gone

So 69, `node not running`, means that: no node holds this state directory, or it has
held it for less than an import takes.  What a killed node leaves is a name on which
nobody answers, and that is 69 too.
"""

import os
import select
import socket
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import Final

from mesh.core.control import REQUEST_MAX_LEN, encode_refusal
from mesh.errors import TryLaterError
from mesh.node.submission import bind_unix

CONTROL_MODE: Final = 0o600
ASK_SECONDS: Final = 0.2
"""For a question to arrive, which is a program's of ours: one asks at a time."""
ANSWER: Final = encode_refusal(
    TryLaterError.exit_code, "starting: the node reads its spool; ask again in a while"
)


class Starting:
    """Holds the control socket from the lock to the end."""

    def __init__(self, path: Path) -> None:
        """Bind and answer; CannotCreateError."""
        self._path = path
        self._sock = bind_unix(path, CONTROL_MODE)
        self._sock.setblocking(False)
        self._wake = os.eventfd(0, os.EFD_CLOEXEC)
        self._thread = Thread(target=self._answer_all, name="starting", daemon=True)
        self._thread.start()

    def take(self) -> socket.socket:
        """Give the listening socket away: from now on somebody else answers."""
        self._stop()
        return self._sock

    def close(self) -> None:
        """End, and leave nothing; again is no error."""
        self._stop()
        self._sock.close()
        self._path.unlink(missing_ok=True)

    def _stop(self) -> None:
        if self._thread.is_alive():
            os.eventfd_write(self._wake, 1)
            self._thread.join()
        if self._wake >= 0:
            os.close(self._wake)
            self._wake = -1

    def _answer_all(self) -> None:
        waiting = select.poll()
        waiting.register(self._wake, select.POLLIN)
        waiting.register(self._sock, select.POLLIN)
        while self._wake not in dict(waiting.poll()):
            with suppress(OSError):
                asking, _ = self._sock.accept()
                with asking:
                    _answer(asking)


def _answer(asking: socket.socket) -> None:
    """Hear the question, whatever it is, so that the answer finds somebody."""
    asking.settimeout(ASK_SECONDS)
    with suppress(TimeoutError):
        asking.recv(REQUEST_MAX_LEN)
    asking.sendall(ANSWER)
