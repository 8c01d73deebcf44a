# SPDX-License-Identifier: MIT
"""The listener: the port on which peers are answered and everybody else is not.

    accepted    -> 4,096 octets of M1 within 15 s -> M2 after a drawn delay
                -> 4,096 octets of M3 within 15 s -> the exchange's link
    otherwise   -> silence: read and throw away, send nothing; close a while after the
                   other side does, or 60 to 180 s after the accept (drawn then)

Until M1 has opened, whatever comes is read, and an end answered, at instants that were
drawn from the accept on (looks.py): mesh/audit/reader.py does that and nothing else,
and nobody who is not listed can tell the two apart.  More than M1 before M2 is no M1.
A handshake in which this machine may have become another one (pacer/standstill.py) meets
silence too: a clone has its keys as well.
At most UNPROVEN_MAX connections before their proof; the oldest makes room, so that a
crowd of silent strangers keeps no peer out.
"""

import errno
import socket
from collections.abc import Sequence
from typing import Final

import trio

from mesh.core.cell import CELL_LEN
from mesh.core.crypto import Entropy
from mesh.core.gate import Gate, Responder
from mesh.core.handshake import (
    MESSAGE_SECONDS,
    PeerKeys,
    Session,
    response_delay,
    silence_duration,
)
from mesh.core.names import parse_endpoint
from mesh.errors import CannotCreateError, HandshakeError
from mesh.node.counters import PeerCounters
from mesh.node.exchange import Exchange
from mesh.node.looks import Looks
from mesh.node.wire import (
    SOCKET_BUFFER,
    SocketWire,
    Wire,
    close_quietly,
    receive_exactly,
)

UNPROVEN_MAX: Final = 128
"""Connections before the proof: half a megabyte of kernel memory each at most."""
BACKLOG: Final = 128
_NO_IPV6: Final = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)
ACCEPT_PAUSE_SECONDS: Final = 0.1
"""After an accept that failed for want of descriptors."""


def bind(addresses: Sequence[str]) -> list[socket.socket]:
    """Bind every `host:port`; CannotCreateError names the one that cannot be had.

    All interfaces of IPv6, which is in every default, count only where the machine has
    IPv6 or nothing else is asked for.
    """
    bound: list[socket.socket] = []
    for address in addresses:
        host, port = parse_endpoint(address)
        try:
            bound.append(_bind(host, port))
        except OSError as error:
            if host == "::" and bound and error.errno in _NO_IPV6:
                continue
            for each in bound:
                each.close()
            raise CannotCreateError(
                f"cannot listen on {address}: {error.strerror}; "
                "is another node running, or is the address not this machine's?"
            ) from error
    return bound


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            sock.setsockopt(socket.SOL_SOCKET, option, SOCKET_BUFFER)
        sock.bind((host, port))
        sock.listen(BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock


class Listener:
    """Answers peers on the bound sockets."""

    def __init__(
        self, gate: Gate, counters: PeerCounters, exchange: Exchange, entropy: Entropy
    ) -> None:
        self._gate = gate
        self._counters = counters
        self._exchange = exchange
        self._entropy = entropy
        self._guard = exchange.qmgr.guard
        self._unproven: dict[object, trio.CancelScope] = {}
        self._saving = trio.Lock()

    async def run(self, sock: socket.socket) -> None:
        """Accept on one socket, for ever."""
        sock.setblocking(False)
        async with trio.open_nursery() as nursery:
            while True:
                await trio.lowlevel.wait_readable(sock)
                try:
                    accepted, _ = sock.accept()
                except BlockingIOError:
                    continue
                except OSError:
                    await trio.sleep(ACCEPT_PAUSE_SECONDS)
                    continue
                wire = SocketWire(accepted)
                wire.fix_buffers()
                nursery.start_soon(self.serve, wire)

    async def serve(self, wire: Wire) -> None:
        """Serve one connection from its accept to its end."""
        with self._guard(wire.close):
            await self._serve(wire)

    async def _serve(self, wire: Wire) -> None:
        until = trio.current_time() + silence_duration(self._entropy)
        looks = Looks(wire, self._entropy)
        while len(self._unproven) >= UNPROVEN_MAX:
            self._unproven.pop(next(iter(self._unproven))).cancel()
        scope = self._unproven[wire] = trio.CancelScope(deadline=until)
        session = None
        try:
            with scope:
                session = await self._handshake(wire, looks)
                if session is None:
                    await looks.ignore()
        finally:
            self._unproven.pop(wire, None)
            if session is None:
                close_quietly(wire)
        if session is not None:
            await self._exchange.run_link(session, wire)

    async def _handshake(self, wire: Wire, looks: Looks) -> Session | None:
        """Prove and be proven; None: be silent."""
        message = b""
        until = trio.current_time() + MESSAGE_SECONDS
        while (
            len(message) < CELL_LEN and not looks.over and trio.current_time() < until
        ):
            message += await looks.next()
        if len(message) == CELL_LEN:
            with self._guard():  # what breaks us meets silence too
                return await self._answer(wire, message)
        return None

    async def _answer(self, wire: Wire, message_1: bytes) -> Session | None:
        leaves = trio.current_time() + response_delay(self._entropy)
        moved = self._exchange.moves()
        try:
            responder = self._gate.receive_message_1_untrusted(
                message_1, trio.current_time()
            )
        except HandshakeError:
            return None
        # A listed peer's hello, at most one a peer: no crowd of strangers pushes it out.
        self._unproven.pop(wire, None)
        try:
            return await self._prove(wire, responder, leaves, moved)
        except HandshakeError:
            return None
        finally:
            responder.abandon()

    async def _prove(
        self, wire: Wire, responder: Responder, leaves: float, moved: int
    ) -> Session | None:
        await trio.sleep_until(leaves)
        if self._exchange.moves() != moved:
            return None
        wire.try_send(responder.message_2)
        message = None
        with trio.move_on_after(MESSAGE_SECONDS):
            message = await receive_exactly(wire, CELL_LEN)
        if message is None:
            return None
        session = responder.receive_message_3_untrusted(message, trio.current_time())
        statement = self._counters.prove(session.peer_link_key, session.counter)
        try:
            async with self._saving:  # in the order of the statements
                await trio.to_thread.run_sync(self._counters.save, statement)
        except OSError:
            listed = None  # what is not durable did not happen
        else:
            listed = self._gate.find_peer(session.peer_link_key)
        if (
            listed is None
            or _who(listed) != _who(session.peer)
            or self._exchange.moves() != moved
        ):
            session.wipe()  # removed while the disk worked: its links end at once
            return None
        return session


def _who(peer: PeerKeys) -> tuple[str, bytes]:
    return peer.name, peer.identity
