# SPDX-License-Identifier: MIT
"""A client of the local socket that sends any octets whatever: a buggy remailer too."""

import re
import socket
from pathlib import Path
from types import TracebackType
from typing import Self

CHUNK_LEN = 65_536
REPLY_SECONDS = 30.0


class Client:
    """One conversation; every call gives the codes of the replies that it caused."""

    def __init__(self, path: Path, helo: bytes = b"EHLO remailer.test") -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(REPLY_SECONDS)
        self._file = self._socket.makefile("rb")
        try:
            self._socket.connect(str(path))
            self.greeting = self.reply()
            if helo:
                self.command(helo)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Leave without a word."""
        self._file.close()
        self._socket.close()

    def reply(self) -> int:
        """The code of the next reply; 0 when the connection has ended."""
        while True:
            line = self._file.readline()
            if not line:
                return 0
            assert re.match(rb"[2-5][0-9][0-9][ -]", line), line
            if line[3:4] == b" ":
                return int(line[:3])

    def raw(self, octets: bytes) -> None:
        """Send as it stands."""
        self._socket.sendall(octets)

    def command(self, line: bytes) -> int:
        """Send one line; the reply's code."""
        self.raw(line + b"\r\n")
        return self.reply()

    def envelope(self, *recipients: str) -> list[int]:
        """Send MAIL and each RCPT, one at a time."""
        lines = [b"MAIL FROM:<mix@alpha.test>"]
        lines += [f"RCPT TO:<{recipient}>".encode() for recipient in recipients]
        return [self.command(line) for line in lines]

    def data(self, content: bytes) -> int:
        """Send the content by DATA, dot-stuffed and no more than that."""
        code = self.command(b"DATA")
        if code != 354:
            return code
        lines = content.replace(b"\r\n.", b"\r\n..")
        if content.startswith(b"."):
            lines = b"." + lines
        end = b"" if not content or content.endswith(b"\r\n") else b"\r\n"
        self.raw(lines + end + b".\r\n")
        return self.reply()

    def bdat(self, content: bytes) -> int:
        """Send the content by BDAT in chunks; the last one's code."""
        chunks = [
            content[at : at + CHUNK_LEN]
            for at in range(0, max(len(content), 1), CHUNK_LEN)
        ]
        code = 250
        for number, chunk in enumerate(chunks, 1):
            last = b" LAST" if number == len(chunks) else b""
            self.raw(b"BDAT %d%b\r\n%b" % (len(chunk), last, chunk))
            code = self.reply()
        return code

    def send(self, recipient: str, content: bytes) -> int:
        """Hand over one message by DATA; the last code."""
        assert self.envelope(recipient) == [250, 250]
        return self.data(content)

    def send_at_once(self, recipients: tuple[str, ...], content: bytes) -> int:
        """Hand over one message in one write; the first reply that is not 250, or 250."""
        lines = [b"MAIL FROM:<mix@alpha.test>"]
        lines += [f"RCPT TO:<{recipient}>".encode() for recipient in recipients]
        lines += [b"BDAT %d LAST" % len(content)]
        self.raw(b"\r\n".join(lines) + b"\r\n" + content)
        codes = [self.reply() for _ in lines]
        return next((code for code in codes if code != 250), 250)
