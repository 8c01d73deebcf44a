# SPDX-License-Identifier: MIT
r"""Replies: the three digits that answer a command (RFC 5321 section 4.2).

    code  SP   text CRLF            the last or only line
    code  "-"  text CRLF            a line that another one follows

    code   severity
     2yz   POSITIVE       done; whoever sent it has taken the responsibility
     3yz   INTERMEDIATE   go on: the octets of the message
     4yz   TRANSIENT      not now: try later
     5yz   PERMANENT      never: tell the sender

Invariant: a Reply always encodes to lines that ReplyReader reads back as the same
Reply; no text holds anything but printable ASCII, so no reply can smuggle another.
Arriving text is not trusted: what is not printable ASCII becomes "?".  Nothing here
knows which command is being answered.  See `mesh help protocol`, 4.
"""

import enum
import re
from dataclasses import dataclass
from typing import Final

from mesh.errors import LocalProtocolError, RemoteProtocolError

# Octets of one arriving line with its CRLF.  RFC 5321 4.5.3.1.5 says 512, but real
# servers send long lines; 2,048 is what Postfix reads.
REPLY_LINE_MAX: Final = 2048
# Lines of one arriving reply: an EHLO answer has about 15; more is an attack.
REPLY_LINES_MAX: Final = 128

_LINE: Final = re.compile(rb"([2-5][0-9]{2})(?:([ -])([^\r\n]*+))?\r\n", re.DOTALL)
# Runs of what may not stand in a text: replaced octet by octet.
_UNPRINTABLE: Final = re.compile(r"[^\x20-\x7e]")


class Severity(enum.IntEnum):
    """The first digit: all that a sender needs to decide what to do next."""

    POSITIVE = 2
    INTERMEDIATE = 3
    TRANSIENT = 4
    PERMANENT = 5


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer: a code from 200 to 599 and its text, lines parted by LF.

    Raises LocalProtocolError for what could not be sent: our own bug.
    """

    code: int
    text: str

    def __post_init__(self) -> None:
        plain = self.text if "\n" not in self.text else self.text.replace("\n", "")
        if not (200 <= self.code <= 599 and plain.isascii() and plain.isprintable()):
            raise LocalProtocolError("a reply that cannot be sent")

    @property
    def severity(self) -> Severity:
        """What the first digit says."""
        return Severity(self.code // 100)

    @property
    def positive(self) -> bool:
        """True for 2yz: done."""
        return self.code < 300

    @property
    def transient(self) -> bool:
        """True for 4yz: worth another try."""
        return 400 <= self.code < 500

    @property
    def permanent(self) -> bool:
        """True for 5yz: another try would get the same answer."""
        return self.code >= 500

    def encode(self) -> bytes:
        """The lines as they travel, each with its CRLF."""
        if "\n" not in self.text:
            return b"%d %s\r\n" % (self.code, self.text.encode("ascii"))
        *first, last = self.text.encode("ascii").split(b"\n")
        lines = [b"%d-%s\r\n" % (self.code, line) for line in first]
        return b"".join(lines) + b"%d %s\r\n" % (self.code, last)


HELP: Final = Reply(214, "HELO EHLO MAIL RCPT DATA BDAT RSET NOOP HELP VRFY QUIT")
BYE: Final = Reply(221, "bye")
OK: Final = Reply(250, "ok")
CANNOT_VERIFY: Final = Reply(252, "try it and see")
START_MAIL: Final = Reply(354, "go on, end with a dot on a line of its own")
SHUTTING_DOWN: Final = Reply(421, "ending here, try later")
TRY_LATER: Final = Reply(451, "try later")
NO_ROOM: Final = Reply(452, "no room, try later")
TOO_MANY_RECIPIENTS: Final = Reply(452, "too many recipients in one message")
UNKNOWN_VERB: Final = Reply(500, "no such command")
LINE_TOO_LONG: Final = Reply(500, "line too long")
BARE_LINE_END: Final = Reply(500, "a line ends with CR LF")
NOT_IMPLEMENTED: Final = Reply(502, "not implemented")
BAD_SEQUENCE: Final = Reply(503, "not now: out of order")
NO_SUCH_RECIPIENT: Final = Reply(550, "no node serves this recipient")
WRONG_NAME: Final = Reply(550, "that is not your name")
TOO_BIG: Final = Reply(552, "message too big")
BARE_CR_OR_LF: Final = Reply(554, "a CR or LF outside CR LF")
NO_VALID_RECIPIENTS: Final = Reply(554, "no valid recipients")
PARAMETER_REFUSED: Final = Reply(555, "parameter not known here")

# Lines that are not parsed each time: ours, which make up nearly all of a link's traffic,
# and the first few that a server says.
KNOWN_MAX: Final = 16
# Of a server's only short ones without an address, and without a digit but in the two
# codes: what names a message ("queued as 7F3A") must not be kept, and comes but once.
_KEEPABLE: Final = re.compile(
    rb"[2-5][0-9]{2} (?:[245]\.[0-9]{1,3}\.[0-9]{1,3} )?[^0-9@\r\n]{0,64}\r\n"
)
OK_LINE: Final = OK.encode()
_KNOWN: Final = {reply.encode(): reply for reply in (OK, START_MAIL, BYE)}


class ReplyReader:
    """Octets in, replies out: any split of the octets gives the same replies."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._start = 0  # of what was not given out
        self._searched = 0  # no line end before this offset
        self._code = 0  # of the reply whose lines are being gathered
        self._lines: list[str] = []
        self._known = dict(_KNOWN)

    def receive_data(self, data: bytes | bytearray | memoryview) -> None:
        """Take octets; call next_reply until it gives None before the next."""
        self._buffer += data

    @property
    def buffered(self) -> int:
        """Octets that were received and are no whole line yet, or were not asked for."""
        return len(self._buffer) - self._start

    def next_reply(self) -> Reply | None:
        """The next whole reply, or None when its octets have not come yet.

        Raises RemoteProtocolError for what is no reply; the reader is then dead.
        """
        buffer = self._buffer
        while True:
            end = buffer.find(b"\n", self._searched) + 1
            if not end:
                del buffer[: self._start]
                self._start = 0
                self._searched = len(buffer)
                if len(buffer) > REPLY_LINE_MAX:
                    raise RemoteProtocolError("reply line too long")
                return None
            line = bytes(buffer[self._start : end])
            reply = None if self._lines else self._known.get(line)
            if reply is None:
                # May raise: the line stays, and the next call raises again.
                reply = self._read_line_untrusted(line)
            self._start = self._searched = end
            if reply is not None:
                return reply

    def _read_line_untrusted(self, line: bytes) -> Reply | None:
        """One line with its end; the Reply that it completes, if it does."""
        match = _LINE.fullmatch(line)
        if match is None or len(line) > REPLY_LINE_MAX:
            raise RemoteProtocolError("not a reply")
        code = int(match[1])
        if self._lines and (code != self._code or len(self._lines) >= REPLY_LINES_MAX):
            raise RemoteProtocolError("reply lines that do not belong together")
        text = (match[3] or b"").decode("latin-1")
        self._lines.append(_UNPRINTABLE.sub("?", text))
        self._code = code
        if match[2] == b"-":
            return None
        reply = Reply(code, "\n".join(self._lines))
        if (
            len(self._lines) == 1
            and len(self._known) < KNOWN_MAX
            and _KEEPABLE.fullmatch(line)
        ):
            self._known[line] = reply
        self._lines.clear()
        return reply
