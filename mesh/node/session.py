# SPDX-License-Identifier: MIT
"""One session with one mail server: EHLO, STARTTLS where offered, messages, QUIT.

    the session ends                     Outcome      the messages under way
    before a greeting and EHLO           UNREACHED    there are none
    in the TLS handshake                 NO_TLS       there are none
    by a break, 421, silence, nonsense   BROKEN       4yz: deferred
    by our QUIT                          DONE         there are none

Messages are pipelined where the server lets us (core/smtp.py).  TLS is opportunistic:
any certificate will do, for the alternative is none.  The content goes as it came in,
with CR LF and doubled dots; no header of ours.
"""

import enum
import ssl
from dataclasses import dataclass
from typing import Final

import trio

from mesh.core.names import normalize_host
from mesh.core.smtp import (
    Finished,
    Outgoing,
    Sender,
    SenderClosed,
    SenderDialect,
    StartTls,
)
from mesh.node.mx import Place
from mesh.node.spool import Ref
from mesh.node.visit import Visit

CONNECT_SECONDS: Final = 30.0
"""For a connection to one address: Postfix's."""
TLS_SECONDS: Final = 60.0
REPLY_SECONDS: Final = 600.0
"""For the reply to a final dot, and the others need no less: RFC 5321 4.5.3.2."""
QUIT_SECONDS: Final = 5.0
READ_MAX: Final = 16_384
SEND_MAX: Final = 262_144


class Outcome(enum.Enum):
    """How a session with one place ended."""

    UNREACHED = "nobody greeted us"
    NO_TLS = "the handshake failed"
    BROKEN = "it ended before its time"
    DONE = "all that was to be said was said"


@dataclass(frozen=True)
class Manner:
    """How we present ourselves: our name, our TLS, and whether to ask for it."""

    helo: str
    context: ssl.SSLContext
    tls: bool


async def connect_and_send(place: Place, visit: Visit, manner: Manner) -> Outcome:
    """Hold a session with one place, if there is one to be had."""
    stream = None
    with trio.move_on_after(CONNECT_SECONDS):
        try:
            stream = await trio.open_tcp_stream(place.address, place.port)
        except OSError:
            return Outcome.UNREACHED
    if stream is None:
        return Outcome.UNREACHED
    return await _Session(stream, place.host, visit, manner).run()


class _Session:
    """One connection to one place."""

    def __init__(
        self, stream: trio.abc.Stream, host: str, visit: Visit, manner: Manner
    ) -> None:
        self._stream = stream
        self._host = host
        self._visit = visit
        self._context = manner.context
        self._sender = Sender(
            dialect=SenderDialect.SMTP, helo=manner.helo, tls=manner.tls
        )
        self._outcome = Outcome.UNREACHED

    async def run(self) -> Outcome:
        """Say all that is to be said, or as much as this server lets us."""
        try:
            while self._attend():
                if not await self._exchange():
                    self._sender.receive_eof()
        finally:
            with trio.CancelScope(shield=True):
                await trio.aclose_forcefully(self._stream)
        return self._outcome

    def _attend(self) -> bool:
        """Take the sender's events; False when it has ended."""
        while (event := self._sender.next_event()) is not None:
            if isinstance(event, SenderClosed):
                return False
            if isinstance(event, StartTls):
                self._outcome = Outcome.NO_TLS
            elif isinstance(event, Finished):
                ref: Ref = event.token  # type: ignore[assignment]
                # What ended with the session alone was answered by nobody.
                answered = self._sender.ready or not all(
                    reply.transient for reply in event.replies
                )
                self._visit.finished(ref, event.replies, answered=answered)
        return True

    async def _exchange(self) -> bool:
        """One turn: encrypt or send what there is, then read; False: it is over."""
        with trio.move_on_after(TLS_SECONDS) as handshake:
            if self._outcome is Outcome.NO_TLS and not await self._encrypt():
                return False
        if handshake.cancelled_caught:
            return False
        await self._fill()
        seconds = QUIT_SECONDS if self._outcome is Outcome.DONE else REPLY_SECONDS
        with trio.move_on_after(seconds):
            try:
                while self._sender.pending:
                    await self._stream.send_all(self._sender.take(SEND_MAX))
                data = await self._stream.receive_some(READ_MAX)
            except trio.BrokenResourceError:
                return False
            if data:
                self._sender.receive_data(data)
            return bool(data)
        return False

    async def _encrypt(self) -> bool:
        """Put TLS around the connection and begin anew; False: the handshake failed."""
        stream = trio.SSLStream(
            self._stream,
            self._context,
            server_hostname=_sni(self._host),
            https_compatible=True,  # many servers end without TLS's farewell
        )
        try:
            await stream.do_handshake()
        except (trio.BrokenResourceError, ssl.SSLError):
            return False
        self._stream = stream
        self._outcome = Outcome.UNREACHED
        self._sender.tls_started()
        return True

    async def _fill(self) -> None:
        """Give the sender what it can take; when there is no more, its farewell."""
        sender = self._sender
        if not sender.ready:
            return
        if self._outcome is not Outcome.DONE:
            self._outcome = Outcome.BROKEN
        while sender.can_send:
            found = await self._visit.take()
            if found is None:
                break
            ref, record = found
            sender.send(
                Outgoing(ref, record.reverse_path, record.recipients, record.content)
            )
        if not self._visit.flying and self._outcome is Outcome.BROKEN:
            self._outcome = Outcome.DONE
            sender.quit()


def _sni(host: str) -> str | None:
    """Give the name that the handshake may carry; a zone can hold any octets."""
    try:
        name = normalize_host(host)
    except ValueError:
        return None
    return None if name.rpartition(".")[2].isdecimal() else name


def opportunistic() -> ssl.SSLContext:
    """Encrypt to whoever answers: the name was learned from an unsigned zone anyway."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
