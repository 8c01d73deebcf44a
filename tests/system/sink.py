# SPDX-License-Identifier: MIT
"""A mail server that takes everything and counts: SMTP, or LMTP for one who says LHLO.

One thread a connection.  A message counts when its last line has come and before the
reply goes out: whoever hears 250 has been counted.
"""

import socketserver
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, NamedTuple, Self

LINE_MAX: Final = 65_536
SILENCE_SECONDS: Final = 60.0


class Copy(NamedTuple):
    """One arrival of a message: its octets, to whom, and when (monotonic)."""

    content: bytes
    recipient: str
    at: float


class Sink:
    """A server on a free port of loopback, or at a path; `copies` as they arrived."""

    def __init__(self, path: Path | None = None) -> None:
        self.copies: list[Copy] = []
        sink = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                self.connection.settimeout(SILENCE_SECONDS)
                with suppress(OSError):  # the node was killed
                    _serve(self, sink)

        self._server: socketserver.BaseServer
        self.port = 0
        if path is None:
            server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
            server.daemon_threads = True
            self.port = int(server.server_address[1])
            self._server = server
        else:
            path.unlink(missing_ok=True)
            beside = socketserver.ThreadingUnixStreamServer(str(path), Handler)
            beside.daemon_threads = True
            self._server = beside
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def _serve(handler: socketserver.StreamRequestHandler, sink: Sink) -> None:
    say = handler.wfile.write
    say(b"220 sink.test\r\n")
    recipients: list[str] = []
    is_lmtp = False
    while line := handler.rfile.readline(LINE_MAX):
        verb = line[:4].upper()
        if verb in (b"EHLO", b"LHLO"):
            is_lmtp = verb == b"LHLO"
            say(b"250-sink.test\r\n250-8BITMIME\r\n250 PIPELINING\r\n")
        elif verb == b"RCPT":
            recipients.append(line[line.index(b"<") + 1 : line.index(b">")].decode())
            say(b"250 ok\r\n")
        elif verb == b"DATA":
            say(b"354 go on\r\n")
            content = _content(handler)
            now = time.monotonic()
            sink.copies += [Copy(content, to, now) for to in recipients]
            say(b"250 ok\r\n" * (len(recipients) if is_lmtp else 1))
            recipients = []
        elif verb == b"QUIT":
            say(b"221 bye\r\n")
            return
        else:
            recipients = [] if verb in (b"MAIL", b"RSET") else recipients
            say(b"250 ok\r\n")


def _content(handler: socketserver.StreamRequestHandler) -> bytes:
    lines: list[bytes] = []
    while (line := handler.rfile.readline()) != b".\r\n":
        if not line:
            raise ConnectionError("ended in the middle of a message")
        lines.append(line.removeprefix(b"."))
    return b"".join(lines)
