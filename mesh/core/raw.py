# SPDX-License-Identifier: MIT
"""A person or a tool on a stream: its octets to commands as mail's, replies back.

Beside a Sender (smtp.py) this is the other thing that can speak on a stream of ours.
What is written to it is read as a receiver reads it, line by line, for three reasons:
the peer is to see nothing that mail would not do, a stream must come to its 221
whatever its user does, and replies must find their commands.

    written            sent
    (nothing)          HELO with our proven name; its 250 is not shown
    HELO, EHLO name    the same verb with our proven name
    BDAT n             pieces of at most CHUNK_LEN, each sent when it is whole, at most
                       CHUNKS_UNREPLIED without a reply; one reply is shown
    DATA               held until its reply; then the text as it is
    QUIT               its reply is the last that is shown; what follows is dropped
    other lines        as they are; at most UNREPLIED_MAX lines without a reply

    the user ends      sent                             shown
    between lines      QUIT                             all replies
    within a BDAT      QUIT: no half of it was sent     no more replies
    within a text      a bare CR, the dot, QUIT: 554    no more replies

Invariant: half a message is never taken for a whole one, and after `end` the stream
comes to its 221.  Events: Reply to be shown, RawEnded once.  Raises
RemoteProtocolError for replies that no honest peer gives.
"""

import enum
from collections import deque
from dataclasses import dataclass
from typing import Final

from mesh.core.buffer import ReceiveBuffer
from mesh.core.command import (
    LINE_MAX,
    Command,
    Verb,
    encode_command,
    parse_command_untrusted,
)
from mesh.core.outbox import Outbox
from mesh.core.reply import BYE, SHUTTING_DOWN, START_MAIL, Reply, ReplyReader
from mesh.errors import CommandError, RemoteProtocolError

CHUNK_LEN: Final = 65_536
"""Octets of one BDAT: as of mail's."""
CHUNKS_UNREPLIED: Final = 4
"""Pieces without a reply: what a stream's credit holds, as of mail's."""
UNREPLIED_MAX: Final = 64
"""Lines without a reply: with 120 octets each far below a peer's REPLIES_MAX."""
ROOM: Final = 2 * CHUNK_LEN
"""Octets that may be held here: a whole chunk and what a read brings behind it."""

_END_OF_TEXT: Final = b"\r\n.\r\n"
_SPOILED: Final = b"\r\r\n.\r\n"
"""A bare CR, which every receiver refuses, and the end of the text."""


class Mode(enum.Enum):
    """What the next octets written are."""

    LINE = "a command"
    HELD = "unknown until DATA has its reply"
    TEXT = "a text up to its dot"
    CHUNK = "counted octets"
    ENDED = "dropped: QUIT was said"


class _Step(enum.Enum):
    """What a reply answers."""

    GREETING = "the first octets: shown"
    HELLO = "our own HELO: not shown"
    PART = "a piece that is not a BDAT's last: not shown"
    PIECE = "a BDAT's last piece"
    SHOWN = "a command, a text"
    DATA = "DATA"
    LAST = "QUIT, or what ends the dialogue like it"


_PIECES: Final = (_Step.PART, _Step.PIECE)
_UNSEEN: Final = (_Step.HELLO, _Step.PART)


@dataclass(frozen=True, slots=True)
class RawEnded:
    """The dialogue is over: the stream may be used again; `by_quit`: with its 221."""

    by_quit: bool


class RawSender:
    """One dialogue of a person or tool; `helo` is our proven name."""

    def __init__(self, helo: str) -> None:
        self._helo = helo
        self._reader = ReplyReader()
        self._outbox = Outbox()
        self._events: deque[Reply | RawEnded] = deque()
        self._buffer = ReceiveBuffer()
        self._mode = Mode.LINE
        self._expected: deque[_Step] = deque((_Step.GREETING,))
        self._left = 0  # octets of a BDAT that were not sent
        self._last = False  # that BDAT is the message's last
        self._tail = b""  # the end of the text so far, where its dot may begin
        self._ending = False
        self._muted = False
        self._put(Command(Verb.HELO, helo), _Step.HELLO)

    # What the shell calls.

    @property
    def pending(self) -> bool:
        """take() has octets to give."""
        return len(self._outbox) > 0

    @property
    def room(self) -> int:
        """Octets that may be written now; 0: wait until some have left."""
        return max(0, ROOM - len(self._buffer) - len(self._outbox))

    def take(self, limit: int) -> bytes:
        """The next octets to send, at most `limit`."""
        return self._outbox.take(limit)

    def write(self, octets: bytes) -> None:
        """Take what the user says; after `end` it is dropped."""
        if not self._ending:
            self._buffer.append(octets)
            self._advance()

    def end(self, *, gone: bool) -> None:
        """The user says no more; `gone`: nor will he read.  A RawEnded follows."""
        if gone:
            self._muted = True
            self._buffer.clear()
        self._ending = True
        self._advance()

    def receive_data(self, data: bytes) -> None:
        """Take octets of replies; then look at next_event and take."""
        self._reader.receive_data(data)
        while (reply := self._reader.next_reply()) is not None:
            self._receive_reply_untrusted(reply)
        self._advance()

    def next_event(self) -> Reply | RawEnded | None:
        """The oldest event that was not yet given; None when there is none."""
        return self._events.popleft() if self._events else None

    # Out.

    def _advance(self) -> None:
        """Send what can be sent of what was written, then the end of it."""
        while self._step():
            pass
        if self._ending:
            self._finish()

    def _step(self) -> bool:
        """Use up one line, text or piece; False: no more can be now."""
        if self._mode is Mode.LINE:
            return self._read_line()
        if self._mode is Mode.TEXT:
            return self._read_text()
        if self._mode is Mode.CHUNK:
            return self._read_chunk()
        if self._mode is Mode.ENDED:
            self._buffer.clear()
        return False

    def _read_line(self) -> bool:
        if len(self._expected) >= UNREPLIED_MAX:
            return False
        line = self._buffer.line()
        if line is None:
            return False
        command = _parse(line)
        if command is not None:
            self._obey(command)
            return True
        # The peer reads it as we do: it refuses it and, where octets would follow
        # that nobody can count, ends the dialogue.
        if not line.endswith(b"\n"):
            line += b"\r\n"
        self._outbox.put(line)
        ends = line[:4].upper() == b"BDAT"
        self._expected.append(_Step.LAST if ends else _Step.SHOWN)
        self._mode = Mode.ENDED if ends else Mode.LINE
        return True

    def _obey(self, command: Command) -> None:
        if command.verb in (Verb.HELO, Verb.EHLO):
            self._put(Command(command.verb, self._helo), _Step.SHOWN)
        elif command.verb is Verb.BDAT:
            self._left, self._last = command.size or 0, command.last
            self._mode = Mode.CHUNK
        elif command.verb is Verb.DATA:
            self._put(command, _Step.DATA)
            self._mode = Mode.HELD
        elif command.verb is Verb.QUIT:
            self._quit()
        else:
            self._put(command, _Step.SHOWN)

    def _read_text(self) -> bool:
        octets = self._buffer.take(len(self._buffer))
        text = self._tail + octets
        end = text.find(_END_OF_TEXT)
        if end < 0:
            self._outbox.put(octets)
            self._tail = text[1 - len(_END_OF_TEXT) :]
            return False
        end += len(_END_OF_TEXT)
        self._outbox.put(text[len(self._tail) : end])
        self._buffer.append(text[end:])
        self._expected.append(_Step.SHOWN)
        self._mode = Mode.LINE
        return True

    def _read_chunk(self) -> bool:
        size = min(self._left, CHUNK_LEN)
        unreplied = sum(step in _PIECES for step in self._expected)
        if len(self._buffer) < size or unreplied >= CHUNKS_UNREPLIED:
            return False
        self._left -= size
        whole = not self._left
        step = _Step.PIECE if whole else _Step.PART
        self._put(Command(Verb.BDAT, size=size, last=whole and self._last), step)
        self._outbox.put(self._buffer.take(size))
        if whole:
            self._mode = Mode.LINE
        return True

    def _finish(self) -> None:
        """Nothing more is written: bring the dialogue to its end."""
        if self._mode is Mode.LINE and len(self._expected) < UNREPLIED_MAX:
            self._quit()
        elif self._mode is Mode.TEXT:
            self._muted = True
            self._outbox.put(_SPOILED)
            self._expected.append(_Step.SHOWN)
            self._quit()
        elif self._mode is Mode.CHUNK and len(self._buffer) < self._left:
            self._muted = True
            self._quit()

    def _quit(self) -> None:
        self._put(Command(Verb.QUIT), _Step.LAST)
        self._mode = Mode.ENDED

    def _put(self, command: Command, step: _Step) -> None:
        self._outbox.put(encode_command(command))
        self._expected.append(step)

    # In.

    def _receive_reply_untrusted(self, reply: Reply) -> None:
        step = self._expected.popleft() if self._expected else None
        if step is None or not _fits(step, reply):
            raise RemoteProtocolError("a reply that answers nothing")
        if step not in _UNSEEN and not self._muted:
            self._events.append(reply)
        if step is _Step.DATA:
            self._mode = Mode.TEXT if reply.code == START_MAIL.code else Mode.LINE
            self._tail = b"\r\n"
        elif step is _Step.LAST:
            by_quit = reply.code == BYE.code and not self._muted
            self._events.append(RawEnded(by_quit))


def _parse(line: bytes) -> Command | None:
    """Read a line as the peer will; None: it is refused there."""
    if len(line) > LINE_MAX or line.find(b"\r") != len(line) - 2:
        return None
    try:
        return parse_command_untrusted(line[:-2])
    except CommandError:
        return None


def _fits(step: _Step, reply: Reply) -> bool:
    """Whether a reply of this code can answer this."""
    if reply.code == SHUTTING_DOWN.code:
        return False
    if step in (_Step.GREETING, _Step.HELLO):
        return reply.positive
    return step is _Step.DATA or not 300 <= reply.code < 400
