# SPDX-License-Identifier: MIT
r"""The dialogue, sender's half: messages in, octets out; replies in, outcomes out.

    dialect  greeting                  message                        final replies
    LINK     HELO, waits for nothing   MAIL RCPT.. BDAT.. in one go   one
    LMTP     220, LHLO                 MAIL RCPT.. DATA, 354, text    one a recipient
    SMTP     220, EHLO or HELO         MAIL RCPT.. DATA, 354, text    one

Every line that is sent puts a Step into a queue, every reply takes one out: the
table _HANDLERS says what the reply means there.  So the two ends cannot lose step,
whatever is refused.

On LINK a content is cut into chunks of CHUNK_LEN, the first one shorter where it does not
come out even, at most CHUNKS_UNREPLIED of them without a reply.  Elsewhere commands are pipelined where PIPELINING is offered (RFC
2920), also across messages: while a text and its dot are on their way, the MAIL,
RCPT and DATA of the next message follow them in the same write.

    all recipients refused   LINK: the peer swallows the chunks that are on the way;
                             otherwise a 354 all the same is answered by a lone dot,
                             a DATA refused by RSET
    STARTTLS                 where `tls` asks for it and it is offered (RFC 3207): the
                             event StartTls, then EHLO anew and nothing remembered;
                             octets behind its 220 came from nobody we know: the end;
                             refused: on in clear, this is opportunistic (RFC 7435)
    421, no reply, nonsense  what has no final reply yet gets a 4yz, SenderClosed

Invariant: each message given to send() comes back in exactly one Finished, with one
reply for each recipient; a recipient that was answered for keeps that answer.
See `mesh help protocol`, 4; RFC 5321, 1870, 2033, 2920, 3030, 6152.
"""

from collections import deque
from collections.abc import Callable, Mapping
from typing import ClassVar, Final

from mesh.core.command import DONE_IDS_MAX, Command, Verb, encode_command, encode_rcpts
from mesh.core.content import to_stuffed
from mesh.core.envelope import Path
from mesh.core.outbox import Outbox
from mesh.core.reply import SHUTTING_DOWN, TRY_LATER, Reply, ReplyReader
from mesh.core.transfer import Event as Event
from mesh.core.transfer import Finished as Finished
from mesh.core.transfer import Outgoing as Outgoing
from mesh.core.transfer import SenderClosed as SenderClosed
from mesh.core.transfer import SenderDialect as SenderDialect
from mesh.core.transfer import StartTls as StartTls
from mesh.core.transfer import Step, Transfer
from mesh.errors import LocalProtocolError, RemoteProtocolError

# Octets of one BDAT, and how many of them may wait for their replies: PROTOCOL
# section 3.  256 KiB a stream is what the credit of a link allows.
CHUNK_LEN: Final = 65536
CHUNKS_UNREPLIED: Final = 4


_DATA: Final = b"DATA\r\n"
_RSET: Final = b"RSET\r\n"
# Steps to which nothing is to be done when the reply is the usual one.
_NEEDING_NO_MORE: Final = frozenset((Step.MAIL, Step.ASIDE))


def _fits(step: Step, code: int) -> bool:
    """Whether a reply's severity is one that this step can have."""
    return code >= 300 if step is Step.DATA else not 300 <= code < 400


class Sender:
    """One conversation with a receiver; `helo` is our name there."""

    def __init__(self, *, dialect: SenderDialect, helo: str, tls: bool = False) -> None:
        self._link = dialect is SenderDialect.LINK
        self._lmtp = dialect is SenderDialect.LMTP
        self._helo = helo
        self._reader = ReplyReader()
        self._outbox = Outbox()
        self._events: deque[Event] = deque()
        self._transfers: deque[Transfer] = deque()
        self._waiting: deque[tuple[bytes, Step]] = deque()
        self._expected: deque[Step] = deque((Step.GREETING,))
        self._offers: frozenset[str] = frozenset(("SIZE",) if self._link else ())
        self._pipelining = self._ready = self._link
        self._fallback = dialect is SenderDialect.SMTP  # HELO where EHLO is refused
        self._wants_tls = tls
        self._encrypting = False  # between StartTls and tls_started
        self._quitting = False
        self._closed = False
        if self._link:
            self._queue(encode_command(Command(Verb.HELO, helo)), Step.HELLO)

    # What the shell calls.

    @property
    def can_send(self) -> bool:
        """send() may be called: one message, and one behind it that is in its text."""
        if self._closed or self._quitting:
            return False
        if not self._transfers:
            return True
        behind = self._pipelining and not self._link and len(self._transfers) == 1
        return behind and self._transfers[0].all_put

    @property
    def idle(self) -> bool:
        """Nothing is under way and no reply is waited for."""
        return not (self._transfers or self._expected or self._outbox)

    @property
    def pending(self) -> bool:
        """take() has octets to give."""
        return self._outbox.octets > 0

    @property
    def outbox(self) -> Outbox:
        """What take() gives, for who lays it out where it is to be (bodies.py)."""
        return self._outbox

    @property
    def ready(self) -> bool:
        """The receiver greeted us, and what was to be encrypted is."""
        return self._ready and not self._closed

    def send(self, outgoing: Outgoing) -> None:
        """Take a message; its Finished will come.

        Raises LocalProtocolError out of turn or for an envelope that no parser gave.
        """
        paths = "".join((outgoing.reverse_path, *outgoing.recipients))
        if not (outgoing.recipients and paths.isascii() and paths.isprintable()):
            raise LocalProtocolError("an envelope that cannot be sent")
        if not self.can_send:
            raise LocalProtocolError("a message out of turn")
        transfer = Transfer(outgoing, [None] * len(outgoing.recipients))
        self._transfers.append(transfer)
        if self._ready:
            self._start(transfer)

    def done(self, ids: tuple[bytes, ...]) -> None:
        """LINK: tell the peer that it may forget these ids."""
        if not self._link:
            raise LocalProtocolError("ids are for links")
        if self._closed:
            return
        for first in range(0, len(ids), DONE_IDS_MAX):
            some = ids[first : first + DONE_IDS_MAX]
            self._queue(encode_command(Command(Verb.NOOP, ids=some)), Step.ASIDE)

    def tls_started(self) -> None:
        """The connection is encrypted: begin anew, with nothing learned in clear."""
        if not self._encrypting:
            raise LocalProtocolError("no encryption was asked for")
        self._encrypting = False
        self._hello()

    def quit(self) -> None:
        """Say QUIT when what is under way has ended; SenderClosed follows."""
        if self._quitting:
            return
        self._quitting = True
        if not self._ready:
            self._close(TRY_LATER)
        self._quit_when_idle()

    def take(self, limit: int) -> bytes:
        """The next octets to send, at most `limit`; b"" when there are none."""
        return self._outbox.take(limit)

    def receive_data(self, data: bytes | bytearray | memoryview) -> None:
        """Take octets of replies; then look at next_event, can_send and take."""
        if self._closed:
            return
        if self._encrypting:  # octets in clear behind the 220
            self._close(TRY_LATER)
            return
        try:
            self._reader.receive_data(data)
            while (reply := self._reader.next_reply()) is not None:
                self._receive_reply_untrusted(reply)
        except RemoteProtocolError:
            self._close(TRY_LATER)

    def receive_eof(self) -> None:
        """The other side will answer no more."""
        self._close(TRY_LATER)

    def next_event(self) -> Event | None:
        """The oldest event that was not yet given; None when there is none."""
        return self._events.popleft() if self._events else None

    # Out.

    def _queue(self, line: bytes, step: Step) -> None:
        self._waiting.append((line, step))
        self._release()

    def _release(self) -> None:
        """Let lines go: all of them, or without PIPELINING one a reply."""
        while self._waiting and (self._pipelining or not self._expected):
            line, step = self._waiting.popleft()
            self._outbox.put(line)
            self._expected.append(step)

    def _start(self, transfer: Transfer) -> None:
        outgoing = transfer.outgoing
        content, recipients = outgoing.content, outgoing.recipients
        eight = "8BITMIME" in self._offers and not content.isascii()
        mail = Command(
            Verb.MAIL,
            path=Path(outgoing.reverse_path),
            size=len(content) if "SIZE" in self._offers else None,
            body="8BITMIME" if eight else "",
            id=outgoing.id if self._link else None,
        )
        lines = [encode_command(mail), *encode_rcpts(recipients)]
        steps = [Step.MAIL, *[Step.RCPT] * len(recipients)]
        if not self._link:
            lines.append(_DATA)
            steps.append(Step.DATA)
        if self._pipelining and not self._waiting:  # in one go
            self._outbox.put(b"".join(lines))
            self._expected += steps
        else:
            self._waiting += zip(lines, steps, strict=True)
            self._release()
        if self._link:
            self._put_chunks(transfer)

    def _put_chunks(self, transfer: Transfer) -> None:
        content = transfer.outgoing.content
        while not transfer.all_put and transfer.unreplied < CHUNKS_UNREPLIED:
            # The longer the last one, the earlier the other side knows that it is the
            # last (streams.py, Large).
            size = CHUNK_LEN if transfer.octets else (len(content) - 1) % CHUNK_LEN + 1
            chunk = memoryview(content)[transfer.octets : transfer.octets + size]
            transfer.octets += len(chunk)
            transfer.unreplied += 1
            transfer.all_put = last = transfer.octets == len(content)
            line = b"BDAT %d LAST\r\n" if last else b"BDAT %d\r\n"
            self._queue(line % len(chunk), Step.CHUNK)
            self._outbox.put(chunk)

    # In: what a reply means where it comes.

    def _receive_reply_untrusted(self, reply: Reply) -> None:
        step = self._expected.popleft() if self._expected else None
        if step in _NEEDING_NO_MORE and reply.code < 300:
            if self._waiting:
                self._release()
        elif step is Step.QUIT:
            self._close(TRY_LATER)
        elif reply.code == SHUTTING_DOWN.code:
            self._close(reply)
        elif step is None or not _fits(step, reply.code):
            raise RemoteProtocolError("a reply that answers nothing")
        else:
            self._HANDLERS[step](self, reply)
            if self._waiting:
                self._release()

    def _on_greeting(self, reply: Reply) -> None:
        if not reply.positive:
            raise RemoteProtocolError("not greeted")
        if not self._link:
            self._hello()

    def _hello(self) -> None:
        verb = Verb.LHLO if self._lmtp else Verb.EHLO
        self._queue(encode_command(Command(verb, self._helo)), Step.HELLO)

    def _on_hello(self, reply: Reply) -> None:
        if reply.permanent and self._fallback:
            self._fallback = False
            self._queue(encode_command(Command(Verb.HELO, self._helo)), Step.HELLO)
            return
        if not reply.positive:
            raise RemoteProtocolError("greeting refused")
        if self._link:
            return
        words = [line.partition(" ")[0].upper() for line in reply.text.split("\n")]
        self._offers = frozenset(words[1:])
        if self._wants_tls and "STARTTLS" in self._offers:
            self._wants_tls = False
            self._waiting.append((b"STARTTLS\r\n", Step.STARTTLS))
        else:
            self._begin()

    def _on_starttls(self, reply: Reply) -> None:
        if not reply.positive:
            self._begin()
            return
        if self._reader.buffered:
            raise RemoteProtocolError("octets in clear behind STARTTLS")
        self._encrypting = True
        self._events.append(StartTls())

    def _begin(self) -> None:
        """Messages may go."""
        self._pipelining = "PIPELINING" in self._offers
        self._ready = True
        for transfer in self._transfers:
            self._start(transfer)

    def _on_mail(self, reply: Reply) -> None:
        transfer = self._transfers[0]
        transfer.failure = reply
        if self._waiting:  # no PIPELINING: the rest need not be said
            self._waiting.clear()
            self._finish(reply)

    def _on_rcpt(self, reply: Reply) -> None:
        transfer = self._transfers[0]
        place = transfer.answered
        transfer.answered += 1
        if reply.positive:
            transfer.accepted.append(place)
        elif transfer.failure is None:
            transfer.outcomes[place] = reply
        unsaid = len(self._waiting) == 1  # no PIPELINING: DATA need not be said
        if unsaid and not transfer.accepted:
            self._waiting.clear()
            self._queue(_RSET, Step.ASIDE)
            self._finish(reply)

    def _on_data(self, reply: Reply) -> None:
        transfer = self._transfers[0]
        if reply.code >= 400:
            # Whether the transaction is over is not said anywhere: now it is.
            transfer.failure = transfer.failure or reply
            self._queue(_RSET, Step.ASIDE)
            self._finish(reply)
            return
        transfer.all_put = True
        # RFC 2920 3.1: what nobody is to get is a lone dot.
        content = transfer.outgoing.content if transfer.accepted else b""
        self._outbox.put(to_stuffed(content))
        finals = len(transfer.accepted) if self._lmtp else 1
        self._expected.extend([Step.TEXT] * finals)
        if not finals:
            self._finish(TRY_LATER)

    def _on_text(self, reply: Reply) -> None:
        transfer = self._transfers[0]
        if not self._lmtp:
            self._finish(reply)
            return
        transfer.outcomes[transfer.accepted.popleft()] = reply
        if not transfer.accepted:
            self._finish(reply)

    def _on_chunk(self, reply: Reply) -> None:
        transfer = self._transfers[0]
        transfer.unreplied -= 1
        if not reply.positive:
            transfer.failure = transfer.failure or reply
        if transfer.failure is None:
            self._put_chunks(transfer)
        if transfer.unreplied:
            return
        if not transfer.all_put:
            self._queue(_RSET, Step.ASIDE)
        self._finish(reply)

    # Ends.

    def _finish(self, otherwise: Reply) -> None:
        self._events.append(self._transfers.popleft().finished(otherwise))
        self._quit_when_idle()

    def _quit_when_idle(self) -> None:
        if self._quitting and not (self._transfers or self._closed):
            self._queue(encode_command(Command(Verb.QUIT)), Step.QUIT)

    def _close(self, otherwise: Reply) -> None:
        """There will be no more replies."""
        if self._closed:
            return
        self._closed = True
        for transfer in self._transfers:
            self._events.append(transfer.finished(otherwise))
        self._transfers.clear()
        self._waiting.clear()
        self._expected.clear()
        self._outbox.clear()
        self._events.append(SenderClosed())

    _HANDLERS: ClassVar[Mapping[Step, Callable[["Sender", Reply], None]]] = {
        Step.GREETING: _on_greeting,
        Step.HELLO: _on_hello,
        Step.STARTTLS: _on_starttls,
        Step.MAIL: _on_mail,
        Step.RCPT: _on_rcpt,
        Step.DATA: _on_data,
        Step.TEXT: _on_text,
        Step.CHUNK: _on_chunk,
        Step.ASIDE: lambda *_: None,
    }
