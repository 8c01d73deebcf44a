# SPDX-License-Identifier: MIT
"""The other end of a socket, in a process of its own: a client, or an LMTP server.

    python -m benchmarks.speaker client PATH SESSIONS TURNS LENGTH
    python -m benchmarks.speaker server PATH

The client says as smtp-source does: MAIL, RCPT, DATA and the text, each when the reply to
the one before has come, on so many kept-open sessions side by side, a message each in a
turn; it begins when it is told to, by a line.  The server takes all, and keeps nothing,
until its input ends.  They are here so that nothing but Python is needed, and so that CPU of the
other end is in no figure.
"""

import selectors
import socket
import sys
from pathlib import Path
from typing import Final

FROM: Final = "from@alpha.test"
TO: Final = "mix@bravo.test"
READ_MAX: Final = 262_144
GREETING: Final = b"220 sink\r\n"
CAPABILITIES: Final = b"250-sink\r\n250-PIPELINING\r\n250 8BITMIME\r\n"


def text_of(length: int) -> bytes:
    """Make a message: lines of 80 octets."""
    line = b"x" * 78 + b"\r\n"
    return (line * (length // len(line) + 1))[: length - 2] + b"\r\n"


def client(path: Path, count: int, turns: int, length: int) -> None:
    """Send a message on each session, so many times."""
    words = [
        b"MAIL FROM:<%b>\r\n" % FROM.encode(),
        b"RCPT TO:<%b>\r\n" % TO.encode(),
        b"DATA\r\n",
        text_of(length) + b".\r\n",
    ]
    sessions = []
    for _ in range(count):
        sessions.append(socket.socket(socket.AF_UNIX))
        sessions[-1].connect(str(path))
    _hear(sessions, b"220")
    _say(sessions, b"HELO client\r\n")
    print("ready", flush=True)
    sys.stdin.readline()
    for said in words * turns:
        _say(sessions, said)
    print("done", flush=True)
    for session in sessions:
        session.close()


def _say(sessions: list[socket.socket], said: bytes) -> None:
    for session in sessions:
        session.sendall(said)
    _hear(sessions, b"354" if said == b"DATA\r\n" else b"250")


def _hear(sessions: list[socket.socket], wanted: bytes) -> None:
    for session in sessions:
        reply = b""
        while not reply.endswith(b"\r\n"):
            got = session.recv(READ_MAX)
            if not got:
                raise SystemExit("it hung up")
            reply += got
        if not reply.startswith(wanted):
            raise SystemExit(reply.decode("ascii", "replace"))


class Listener:
    """What the server knows of one connection."""

    def __init__(self) -> None:
        self._in_text = False
        self._rest = b""

    def answers(self, data: bytes) -> bytes:
        """Take octets; give the replies."""
        data = self._rest + data
        said = []
        while True:
            end = data.find(b"\r\n.\r\n" if self._in_text else b"\r\n")
            if end < 0:
                break
            if self._in_text:
                self._in_text, data = False, data[end + 5 :]
                said.append(b"250 ok\r\n")
                continue
            line, data = data[:end].upper(), data[end + 2 :]
            self._in_text = line == b"DATA"
            said.append(
                b"354 go on\r\n"
                if self._in_text
                else CAPABILITIES if line.startswith((b"LHLO", b"EHLO")) else b"250 ok\r\n"
            )  # fmt: skip
        self._rest = data
        return b"".join(said)


def server(path: Path) -> None:
    """Take messages until the input ends."""
    waiting = selectors.DefaultSelector()
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
        sock.listen(64)
        waiting.register(sock, selectors.EVENT_READ)
        waiting.register(sys.stdin, selectors.EVENT_READ)
        print("ready", flush=True)
        while True:
            for key, _ in waiting.select():
                if key.fileobj is sys.stdin:
                    return
                if key.fileobj is sock:
                    accepted = sock.accept()[0]
                    accepted.sendall(GREETING)
                    waiting.register(accepted, selectors.EVENT_READ, Listener())
                    continue
                end = key.fileobj
                if not isinstance(end, socket.socket):
                    raise TypeError
                if not _answered(end, key.data):
                    waiting.unregister(end)
                    end.close()


def _answered(end: socket.socket, listener: Listener) -> bool:
    """Answer what there is to read; no: it has hung up."""
    try:
        data = end.recv(READ_MAX)
        end.sendall(listener.answers(data))
    except (ConnectionResetError, BrokenPipeError):  # with replies that it did not read
        return False
    return bool(data)


def main() -> None:
    """Be one of the two."""
    kind, path, *numbers = sys.argv[1:]
    if kind == "client":
        client(Path(path), *map(int, numbers))
    else:
        server(Path(path))


if __name__ == "__main__":
    main()
