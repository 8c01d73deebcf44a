# SPDX-License-Identifier: MIT
"""Port 25: mail for addresses that no node serves, to their mail servers.

    tick     each `exit:DOMAIN` queue with mail, no visit under way and no rest: a visit
    visit    the places of the domain (mx.py; a fixed route; the smarthost), in order,
             until one greets us: then one session of at most MESSAGES_MAX messages
    session  EHLO, STARTTLS where offered, messages pipelined, QUIT      core/smtp.py

    what came of it              the messages                      the domain
    a reply to a message         settled by it (qmgr.py)           -
    nobody greets, no DNS        all that wait: deferred           rests as long
    no such domain, null MX      all that wait: bounced            -
    a session that breaks        those under way: deferred         rests

Lookups, connections and retries begin on the pool's ticks only.  TLS is opportunistic:
any certificate will do, for the alternative is none; where the handshake fails the same
place is tried in clear.  The content goes as it came in, with CR LF and doubled dots;
no header of ours.

A recipient that a node has come to serve meanwhile is not sent from here: a listed peer
is never reached in clear.  Nor is one that has come onto the refuse list: it bounces.
"""

import enum
import ssl
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol

import trio

from mesh.config import Config
from mesh.core.crypto import Entropy
from mesh.core.names import normalize_host, parse_endpoint
from mesh.core.pool import Ticks
from mesh.core.record import Record
from mesh.core.reply import TRY_LATER, Reply
from mesh.core.retry import OUTSIDE, retry_delay
from mesh.core.smtp import (
    Finished,
    Outgoing,
    Sender,
    SenderClosed,
    SenderDialect,
    StartTls,
)
from mesh.node.mx import Lookup, Place
from mesh.node.qmgr import QueueManager
from mesh.node.records import Records
from mesh.node.routing import EXIT, REFUSED, UNROUTED, Routing, host_of
from mesh.node.spool import Ref

VISITS_MAX: Final = 64
"""Domains visited at once: each holds a socket and up to two messages."""
MESSAGES_MAX: Final = 100
"""Messages of one session: some servers end longer ones."""
BATCH: Final = 64
"""Heads read at once when everything for a domain fails together."""
CONNECT_SECONDS: Final = 30.0
"""For a connection to one address: Postfix's."""
TLS_SECONDS: Final = 60.0
REPLY_SECONDS: Final = 600.0
"""For the reply to a final dot, and the others need no less: RFC 5321 4.5.3.2."""
QUIT_SECONDS: Final = 5.0
VISIT_SECONDS: Final = 7200.0
"""For a whole visit: a server that drips must end."""
READ_MAX: Final = 16_384
SEND_MAX: Final = 262_144

UNREACHED: Final = Reply(451, "4.4.1 no mail server of the domain answers")


class PlacesOf(Protocol):
    """mx.Lookup.places."""

    async def __call__(self, domain: str) -> list[Place] | Reply:
        """Give the places to try, or why there are none."""


class Outcome(enum.Enum):
    """How a session with one place ended."""

    UNREACHED = "nobody greeted us"
    NO_TLS = "the handshake failed"
    BROKEN = "it ended before its time"
    DONE = "all that was to be said was said"


@dataclass
class _Site:
    """What is remembered of a domain between two visits."""

    busy: bool = False
    failures: int = 0
    rests_until: float = float("-inf")


class Outbound:
    """Everything that leaves by port 25."""

    def __init__(
        self,
        *,
        qmgr: QueueManager,
        places: PlacesOf,
        ticks: Ticks,
        entropy: Entropy,
        helo: str,
        smarthost: str = "",
        routes: Mapping[str, str] | None = None,
        refuses: Callable[[str], bool] = lambda _: False,
    ) -> None:
        self.qmgr = qmgr
        self.helo = helo
        self.refuses = refuses
        self._places = places
        self._ticks = ticks
        self._entropy = entropy
        self._smarthost = smarthost
        self._routes = dict(routes or {})
        self._sites: dict[str, _Site] = {}
        self.tls = _opportunistic()

    @classmethod
    def of(
        cls, config: Config, qmgr: QueueManager, routing: Routing, entropy: Entropy
    ) -> "Outbound":
        """Make it as node.toml says."""
        host = host_of(config)
        own = [host, host.strip("[]").removeprefix("ipv6:")]
        return cls(
            qmgr=qmgr,
            places=Lookup(own_hosts=own).places,
            ticks=Ticks(config.pool.tick_seconds, entropy),
            entropy=entropy,
            helo=host,
            smarthost=config.delivery.smarthost,
            routes=config.delivery.routes,
            refuses=routing.refuses,
        )

    async def run(self) -> None:
        """Work on ticks, for ever."""
        async with trio.open_nursery() as nursery:
            while True:
                await trio.sleep_until(self._ticks.after(trio.current_time()))
                self._tick(nursery)

    def _tick(self, nursery: trio.Nursery) -> None:
        now = trio.current_time()
        visits = sum(site.busy for site in self._sites.values())
        for destination in self.qmgr.exits():
            site = self._sites.setdefault(destination, _Site())
            if site.busy or now < site.rests_until or visits >= VISITS_MAX:
                continue
            visits += 1
            site.busy = True
            nursery.start_soon(self._visit, destination, site)
        # A domain that was quiet for the longest rest begins anew.
        for destination, site in list(self._sites.items()):
            if not site.busy and now > site.rests_until + 2 * OUTSIDE.longest:
                del self._sites[destination]

    async def _visit(self, destination: str, site: _Site) -> None:
        try:
            reply = TRY_LATER
            with trio.move_on_after(VISIT_SECONDS):
                reply = await self._try_places(destination)
        finally:
            site.busy = False
        if reply.positive or reply.permanent:
            site.failures = 0
            return
        site.failures += 1
        rest = retry_delay(site.failures, self._entropy, OUTSIDE)
        site.rests_until = trio.current_time() + rest

    async def _try_places(self, destination: str) -> Reply:
        """Go from place to place; positive: all that could be said was said."""
        places = await self._places_of(destination.removeprefix(EXIT))
        if isinstance(places, Reply):
            await self._fail_all(destination, places)
            return places
        for place in places:
            outcome = await self._session(place, destination, tls=True)
            if outcome is Outcome.NO_TLS:
                outcome = await self._session(place, destination, tls=False)
            if outcome is Outcome.DONE:
                return Reply(250, "done")
            if outcome is Outcome.BROKEN:
                return TRY_LATER
        await self._fail_all(destination, UNREACHED)
        return UNREACHED

    async def _places_of(self, domain: str) -> list[Place] | Reply:
        fixed = self._routes.get(domain, self._smarthost)
        if fixed:
            host, port = parse_endpoint(fixed)
            return [Place(host, host, port)]
        return await self._places(domain)

    async def _session(self, place: Place, destination: str, *, tls: bool) -> Outcome:
        stream = None
        with trio.move_on_after(CONNECT_SECONDS):
            try:
                stream = await trio.open_tcp_stream(place.address, place.port)
            except OSError:
                return Outcome.UNREACHED
        if stream is None:
            return Outcome.UNREACHED
        return await _Session(self, stream, place, destination, tls=tls).run()

    async def _fail_all(self, destination: str, reply: Reply) -> None:
        """Settle everything that waits for a domain: it was tried, and failed."""
        ready = self.qmgr.queue(destination).ready
        refs = list(ready)
        ready.clear()
        for first in range(0, len(refs), BATCH):
            some = refs[first : first + BATCH]
            heads = await self.qmgr.spool.heads(some)
            for ref, head in zip(some, heads, strict=True):
                if head is None:
                    self.qmgr.unreadable(ref)
                    continue
                replies = [reply] * len(head.recipients)
                self.qmgr.settle(ref, head, replies, OUTSIDE)

    def divide(self, ref: Ref, record: Record) -> None:
        """Route each recipient of a record anew: they have parted."""
        qmgr = self.qmgr
        places: dict[str, list[str]] = {}
        for recipient in record.recipients:
            place = qmgr.router(recipient) or UNROUTED
            places.setdefault(place, []).append(recipient)
        parts = [
            replace(
                record,
                id=self._entropy.octets(16),
                destination=place,
                recipients=tuple(theirs),
            )
            for place, theirs in places.items()
        ]

        def committed(refs: Sequence[Ref] | None) -> None:
            if refs is None:
                qmgr.defer(ref, OUTSIDE)
                return
            for part, stored in zip(parts, refs, strict=True):
                qmgr.enqueue(stored, part.destination)
            qmgr.delivered(ref)

        qmgr.spool.accept(parts, committed)


class _Session:
    """One connection to one place."""

    def __init__(
        self,
        outbound: Outbound,
        stream: trio.abc.Stream,
        place: Place,
        destination: str,
        *,
        tls: bool,
    ) -> None:
        self._outbound = outbound
        self._qmgr = outbound.qmgr
        self._stream = stream
        self._place = place
        self._destination = destination
        queue = self._qmgr.queue(destination)
        self._records = Records(self._qmgr, queue)
        self._sender = Sender(dialect=SenderDialect.SMTP, helo=outbound.helo, tls=tls)
        self._flying: dict[Ref, Record] = {}
        self._left = MESSAGES_MAX
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
            if self._flying:
                self._qmgr.release(self._destination, self._flying)
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
                record = self._flying.pop(ref)
                if self._qmgr.settle(ref, record, event.replies, OUTSIDE):
                    self._qmgr.delivered(ref)
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
            self._outbound.tls,
            server_hostname=_sni(self._place.host),
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
            found = await self._next()
            if found is None:
                break
            ref, record = found
            self._flying[ref] = record
            sender.send(
                Outgoing(ref, record.reverse_path, record.recipients, record.content)
            )
        if not self._flying and self._outcome is Outcome.BROKEN:
            self._outcome = Outcome.DONE
            sender.quit()

    async def _next(self) -> tuple[Ref, Record] | None:
        """Take the next message that still may go this way."""
        while self._left > 0:
            taken = await self._records.take(1)
            if not taken:
                break
            [(ref, record)] = taken
            self._left -= 1
            refused = [self._outbound.refuses(to) for to in record.recipients]
            if any(refused):
                replies = [REFUSED if one else TRY_LATER for one in refused]
                self._qmgr.settle(ref, record, replies, OUTSIDE)
            elif any(
                self._qmgr.router(to) != self._destination for to in record.recipients
            ):
                self._outbound.divide(ref, record)
            else:
                return ref, record
        return None


def _sni(host: str) -> str | None:
    """Give the name that the handshake may carry; a zone can hold any octets."""
    try:
        name = normalize_host(host)
    except ValueError:
        return None
    return None if name.rpartition(".")[2].isdecimal() else name


def _opportunistic() -> ssl.SSLContext:
    """Encrypt to whoever answers: the name was learned from an unsigned zone anyway."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
