# SPDX-License-Identifier: MIT
r"""The dialogue, receiver's half: octets in; replies and whole messages out.

One object is one conversation, on the local socket (SMTP, or LMTP after LHLO) or on
a stream of a link.  Which command may come is state.py's table.

A message whose octets are in stops the parsing until answer() is called; what was
sent ahead waits in the buffer.  Octets that were announced are always read, also
when they are refused: a refused BDAT never leaves its content to be taken for
commands.  A BDAT whose count cannot be read would: it ends the conversation.

    refused recipient   LOCAL SMTP   the whole message is refused again at DATA or
                                     BDAT with the same code: some remailers ignore
                                     the replies to MAIL and RCPT
                        LMTP, LINK   that recipient only; without any valid one 554
    final replies       SMTP, LINK one; LMTP one for each RCPT that got 250

Invariant: every split of the same octets gives the same events and the same octets
of replies; memory stays below the message limit, whatever comes; and a call reads no
more lines than UNTAKEN_MAX octets answer (`behind`).  Nothing here knows who serves an
address (`accepts` does) or stores anything (whoever takes the events does).
See `mesh help protocol`, 4; RFC 5321, 1870, 2033, 2920, 3030.
"""

import enum
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Final, NamedTuple

from mesh.core import reply as replies_
from mesh.core.buffer import ReceiveBuffer
from mesh.core.command import LINE_MAX, Command, Verb, parse_command_untrusted
from mesh.core.content import stuffed_limit
from mesh.core.reply import OK, OK_LINE, Reply
from mesh.core.state import TRANSITIONS, Intake, State
from mesh.core.transaction import MessageReceived as MessageReceived
from mesh.core.transaction import Transaction
from mesh.errors import CommandError, LocalProtocolError, RemoteProtocolError

# Octets that may wait behind an unanswered message.  A link's credit is 256 KiB; the
# local socket stops reading at 64 KiB, and its last read brings up to 256 KiB more.
SENT_AHEAD_MAX: Final = 8 * 65536
# Octets of replies that nobody has taken, from which on no line is read: 400 lines.
UNTAKEN_MAX: Final = 8192


class DialogueKind(enum.Enum):
    """Who is at the other end."""

    LOCAL = "a remailer on this machine"
    LINK = "a peer, whose name is proven"


class IdsDone(NamedTuple):
    """The peer will not offer these ids again: they may be forgotten."""

    ids: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Closed:
    """The conversation is over; send what data_to_send gives, then close."""


Event = MessageReceived | IdsDone | Closed

_Check = Callable[["Dialogue", Command], Reply | None]
_Proceed = Callable[["Dialogue", Command], None]

_FIXED: Final[Mapping[Verb, Reply]] = {
    Verb.HELP: replies_.HELP,
    Verb.VRFY: replies_.CANNOT_VERIFY,
    Verb.TURN: replies_.NOT_IMPLEMENTED,
}


class Dialogue:
    """One conversation.

    name        ours, for the greeting
    accepts     the refusal of a forward-path (on a link with its source route), or
                None to take it
    peer        LINK: the proven name, which HELO must give
    max_message octets of one message
    """

    def __init__(
        self,
        *,
        name: str,
        kind: DialogueKind,
        accepts: Callable[[str], Reply | None],
        peer: str = "",
        max_message: int,
    ) -> None:
        self._name = name
        self._link = kind is DialogueKind.LINK
        self._accepts = accepts
        self._peer = peer.lower()
        self._max_message = max_message
        self._text_max = stuffed_limit(max_message)
        self._lmtp = False
        self._state = State.CONNECTED
        self._intake = Intake.LINE
        self._buffer = ReceiveBuffer()
        self._left = 0  # octets of this chunk that have not come
        self._last = False  # this chunk is the last
        self._out = bytearray(Reply(220, f"{name} ESMTP mesh").encode())
        self._events: deque[Event] = deque()
        self._mail = Transaction()
        self.behind = False  # lines wait for data_to_send, and then for go_on

    def receive_data(self, data: bytes | bytearray | memoryview) -> None:
        """Take octets; then look at next_event and data_to_send.

        Raises RemoteProtocolError when more was sent ahead than anybody may.
        """
        if self._intake is Intake.ENDED:
            return
        self._buffer.append(data)
        self.go_on()
        if self._intake is Intake.ANSWER and len(self._buffer) > SENT_AHEAD_MAX:
            self._end()
            raise RemoteProtocolError("too much sent ahead of an answer")

    @property
    def chunk_left(self) -> int:
        """Octets of a chunk that have not come; 0: none, or nobody wants them."""
        wanted = self._intake is Intake.CHUNK and not self._mail.failure
        return self._left if wanted else 0

    def take_chunk(self, data: bytes | memoryview) -> None:
        """Take fewer octets than `chunk_left`, which need no look at them."""
        self._left -= len(data)  # the buffer is empty: a chunk leaves nothing there
        self._mail.add_content(data)

    def receive_eof(self) -> None:
        """The other side will send no more: an unfinished message is nothing."""
        if self._intake is not Intake.ENDED:
            self._end()

    def next_event(self) -> Event | None:
        """The oldest event that was not yet given; None when there is none."""
        return self._events.popleft() if self._events else None

    def answer(self, *replies: Reply) -> None:
        """Answer the message: one reply for all, or on LMTP one for each recipient.

        What was sent ahead is parsed now: look at next_event again.  After the end
        of the conversation an answer has nobody to go to, which is no mistake.
        """
        if self._intake is Intake.ENDED:
            return
        if self._intake is not Intake.ANSWER:
            raise LocalProtocolError("an answer without a message")
        if len(replies) not in {1, len(self._mail.recipients) if self._lmtp else 1}:
            raise LocalProtocolError("not one reply, nor one for each recipient")
        self._conclude(replies)
        self.go_on()

    def data_to_send(self) -> bytes:
        """All octets of replies since the last call, the greeting first."""
        out = bytes(self._out)
        self._out.clear()
        return out

    @property
    def awaiting_answer(self) -> bool:
        """True while a message waits for answer(): read no further from a socket."""
        return self._intake is Intake.ANSWER

    @property
    def concluding(self) -> bool:
        """A message's last chunk has begun: no peer waits for a reply before its last."""
        return self.awaiting_answer or (self._intake is Intake.CHUNK and self._last)

    @property
    def buffered(self) -> int:
        """Octets held that came in and are not yet a message."""
        return len(self._buffer) + self._mail.octets

    @property
    def content_octets(self) -> int:
        """Octets held of the message that is coming in."""
        if self._intake is Intake.TEXT:
            return len(self._buffer) - 2
        return self._mail.octets

    def go_on(self) -> None:
        """Read on in what is here; then look at next_event and data_to_send."""
        self.behind = False
        while (reader := self._READERS.get(self._intake)) is not None and reader(self):
            pass

    def _read_line(self) -> bool:
        if len(self._out) >= UNTAKEN_MAX:
            self.behind = len(self._buffer) > 0
            return False
        line = self._buffer.line()
        if line is None:
            return False
        if len(line) > LINE_MAX:
            self._reject_line(line, replies_.LINE_TOO_LONG)
        elif line.find(b"\r") != len(line) - 2:
            self._reject_line(line, replies_.BARE_LINE_END)
        else:
            try:
                command = parse_command_untrusted(line[:-2])
            except CommandError as error:
                self._reject_line(line, Reply(error.code, error.text))
            else:
                self._obey(command)
        return True

    def _read_text(self) -> bool:
        content = self._buffer.text(self._text_max)
        if content is None:
            return False
        if self._buffer.too_big:
            self._mail.fail(replies_.TOO_BIG)
        self._finish(content)
        return True

    def _read_chunk(self) -> bool:
        mail = self._mail
        octets = self._buffer.take(self._left)
        self._left -= len(octets)
        mail.add_content(octets)
        if self._left:
            return False
        self._intake = Intake.LINE
        if self._last:
            self._finish(mail.take_content())
            return True
        self._say(mail.failure or OK)
        return True

    def _obey(self, command: Command) -> None:
        verb = command.verb
        if (fixed := _FIXED.get(verb)) is not None:
            self._say(fixed)
            return
        after = TRANSITIONS[self._state].get(verb)
        check, proceed = self._HANDLERS[verb]
        if after is None:
            self._refuse(command, self._out_of_order(verb))
        elif (refusal := check(self, command)) is not None:
            self._refuse(command, refusal)
        else:
            self._state = after
            proceed(self, command)

    def _out_of_order(self, verb: Verb) -> Reply:
        content = verb in {Verb.DATA, Verb.BDAT}
        if content and self._state is State.SENDER and self._mail.refused:
            return self._check_content(None) or replies_.NO_VALID_RECIPIENTS
        return replies_.BAD_SEQUENCE

    def _refuse(self, command: Command, refusal: Reply) -> None:
        if command.verb is Verb.BDAT:
            if self._state in {State.SENDER, State.RECIPIENTS}:
                self._state = State.CHUNKS
            self._mail.fail(refusal)
            self._proceed_bdat(command)
            return
        self._say(refusal)
        if command.verb is Verb.DATA:
            self._reset()
        elif command.verb is Verb.RCPT:
            self._mail.refuse_recipient(refusal)

    def _reject_line(self, line: bytes, reply: Reply) -> None:
        self._say(reply)
        if line[:4].upper() == b"BDAT":
            self._end()
        elif line[:4].upper() == b"RCPT":
            self._mail.refuse_recipient(reply)

    def _check_hello(self, command: Command) -> Reply | None:
        if self._link and command.verb is Verb.LHLO:
            return replies_.UNKNOWN_VERB
        if self._link and command.argument.lower() != self._peer:
            return replies_.WRONG_NAME
        return None

    def _proceed_hello(self, command: Command) -> None:
        self._reset()
        self._lmtp = command.verb is Verb.LHLO
        text = self._name
        if command.verb is not Verb.HELO:
            text += f"\nPIPELINING\n8BITMIME\nCHUNKING\nSIZE {self._max_message}"
        self._say(Reply(250, text))

    def _check_mail(self, command: Command) -> Reply | None:
        if command.id is not None and not self._link:
            return replies_.PARAMETER_REFUSED
        if command.size is not None and command.size > self._max_message:
            return replies_.TOO_BIG
        return None

    def _proceed_mail(self, command: Command) -> None:
        self._mail = Transaction(command.path.address, command.id)
        self._say(OK)

    def _check_rcpt(self, command: Command) -> Reply | None:
        if self._mail.full:
            return replies_.TOO_MANY_RECIPIENTS
        return self._accepts(self._forward_path(command))

    def _proceed_rcpt(self, command: Command) -> None:
        self._mail.add_recipient(self._forward_path(command))
        self._say(OK)

    def _forward_path(self, command: Command) -> str:
        # A source route means something on a link only: envelope.py.
        return command.path.text if self._link else command.path.address

    def _check_content(self, _: Command | None) -> Reply | None:
        return None if self._link or self._lmtp else self._mail.refused

    def _proceed_data(self, _: Command) -> None:
        self._intake = Intake.TEXT
        self._buffer.begin_text()
        self._say(replies_.START_MAIL)

    def _proceed_bdat(self, command: Command) -> None:
        self._intake = Intake.CHUNK
        self._left = command.size or 0
        self._last = command.last
        if self._mail.octets + self._left > self._max_message:
            self._mail.fail(replies_.TOO_BIG)

    def _proceed_rset(self, _: Command) -> None:
        self._reset()
        self._say(OK)

    def _check_noop(self, command: Command) -> Reply | None:
        return replies_.PARAMETER_REFUSED if command.ids and not self._link else None

    def _proceed_noop(self, command: Command) -> None:
        if command.ids:
            self._events.append(IdsDone(command.ids))
        self._say(OK)

    def _proceed_quit(self, _: Command) -> None:
        self._say(replies_.BYE)
        self._end()

    def _finish(self, content: bytes) -> None:
        """The last octet of a message is in."""
        mail = self._mail
        if (refusal := mail.verdict(content, self._max_message)) is not None:
            self._conclude((refusal,))
            return
        self._intake = Intake.ANSWER
        to = mail.recipients
        self._events.append(MessageReceived(mail.reverse_path, to, mail.id, content))

    def _conclude(self, replies: tuple[Reply, ...]) -> None:
        """Say the final replies: the transaction is over."""
        for reply in self._mail.final_replies(replies, each=self._lmtp):
            self._say(reply)
        self._intake = Intake.LINE
        self._reset()

    def _reset(self) -> None:
        self._mail = Transaction()
        if self._state is not State.CONNECTED:
            self._state = State.READY

    def _end(self) -> None:
        self._state = State.CLOSED
        self._intake = Intake.ENDED
        self._buffer.clear()
        self._mail = Transaction()
        self._events.append(Closed())

    def _say(self, reply: Reply) -> None:
        self._out += OK_LINE if reply is OK else reply.encode()

    # check may refuse and changes nothing; proceed acts, in the state that follows.
    _HANDLERS: ClassVar[Mapping[Verb, tuple[_Check, _Proceed]]] = {
        Verb.HELO: (_check_hello, _proceed_hello),
        Verb.EHLO: (_check_hello, _proceed_hello),
        Verb.LHLO: (_check_hello, _proceed_hello),
        Verb.MAIL: (_check_mail, _proceed_mail),
        Verb.RCPT: (_check_rcpt, _proceed_rcpt),
        Verb.DATA: (_check_content, _proceed_data),
        Verb.BDAT: (_check_content, _proceed_bdat),
        Verb.RSET: (lambda *_: None, _proceed_rset),
        Verb.NOOP: (_check_noop, _proceed_noop),
        Verb.QUIT: (lambda *_: None, _proceed_quit),
    }
    # True: something was used up and there may be more to read.
    _READERS: ClassVar[Mapping[Intake, Callable[["Dialogue"], bool]]] = {
        Intake.LINE: _read_line,
        Intake.TEXT: _read_text,
        Intake.CHUNK: _read_chunk,
    }
