# SPDX-License-Identifier: MIT
"""The dialer: one task a peer keeps a link up, by election.py's rules and no others.

    start      dial at once
    no link    the smaller ID dials after 0.2 to 1 s, the other after 2 to 4 s
    failed     again after a drawn, doubling wait, at most 30 s; a link that ended
               before a cell of the other side came has failed too
    two keys   while our link key changes: the older one first, which every peer knows;
               after each silence the other one

A handshake in which this machine may have become another one (pacer/standstill.py) ends: a
clone has its keys as well.
A peer's keys and addresses are asked for at each dial, so they may change meanwhile.
No dial is ever caused by mail: this task knows none.
"""

import math
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

import trio

from mesh.core.cell import CELL_LEN
from mesh.core.clock import Clock
from mesh.core.crypto import Entropy, Kem, Key
from mesh.core.election import Redial, we_are_smaller
from mesh.core.handshake import (
    MESSAGE_SECONDS,
    Initiator,
    PeerKeys,
    Session,
    response_delay,
    silence_duration,
)
from mesh.core.names import parse_endpoint
from mesh.errors import HandshakeError
from mesh.node.counters import OwnCounter
from mesh.node.exchange import Exchange
from mesh.node.looks import Looks
from mesh.node.peer import Peer
from mesh.node.wire import (
    SocketWire,
    Wire,
    close_quietly,
    receive_exactly,
)

NO_CONNECTION: Final = "cannot connect: is it running, and its port open?"
WRONG_ANSWER: Final = "wrong answer: is its descriptor here the latest?"
BUG: Final = "a bug of this node ended it, dialling"
CONNECT_SECONDS: Final = 15.0
"""For a TCP connection: as long as a message may take."""


class Dialer:
    """Dials peers; what it needs of ourselves."""

    def __init__(
        self,
        *,
        network: str,
        identity: Key,
        statics: Callable[[], Sequence[Key]],
        counter: OwnCounter,
        clock: Clock,
        klass: int,
        kem: Kem,
        exchange: Exchange,
        entropy: Entropy,
    ) -> None:
        """`statics` gives our link keys of now, one or two, newest first."""
        self._network = network
        self._identity, self._statics = identity, statics
        self._counter = counter
        self._clock, self._klass = clock, klass
        self._kem = kem
        self._exchange = exchange
        self._entropy = entropy

    async def keep(
        self, keys: Callable[[], PeerKeys], addresses: Callable[[], tuple[str, ...]]
    ) -> None:
        """Keep one peer linked until cancelled; its name and identity do not change.

        With no address the peer dials us and this only waits.
        """
        first = keys()
        peer = self._exchange.peer(first.name, first.identity)
        redial = Redial(smaller=we_are_smaller(self._exchange.identity, first.identity))
        silences = 0
        async with trio.open_nursery() as nursery:
            while not self._exchange.closing:
                while not (peer.linked or self._exchange.closing):
                    if await nursery.start(
                        self._dial, peer, keys(), addresses(), silences
                    ):
                        silences += 1
                    if not peer.linked:
                        wait = redial.after_failure(self._entropy)
                        await _wait_for_link(peer, wait)
                came_up = await self._while_linked(nursery, peer, keys, addresses)
                if came_up:
                    redial.link_up()
                    silences = 0
                    wait = redial.after_loss(self._entropy)
                else:
                    wait = redial.after_failure(self._entropy)
                await _wait_for_link(peer, wait)

    async def _while_linked(
        self,
        nursery: trio.Nursery,
        peer: Peer,
        keys: Callable[[], PeerKeys],
        addresses: Callable[[], tuple[str, ...]],
    ) -> bool:
        """Wait until the last link has ended, and replace it when it is due to be.

        The other connection is made first.  Returns whether one came up.
        """
        came_up = False
        dials = -1  # with two keys of our own each is tried in turn
        redial = Redial(smaller=True)
        not_before = -math.inf
        while peer.linked and not self._exchange.closing:
            came_up = came_up or peer.up
            with trio.CancelScope(deadline=max(peer.due, not_before)) as waiting:
                await peer.changed.park()
            if waiting.cancelled_caught and not self._exchange.closing:
                await nursery.start(
                    self._dial, peer, keys(), addresses(), dials := dials + 1
                )
                not_before = trio.current_time() + redial.after_failure(self._entropy)
        return came_up

    async def _dial(
        self,
        peer: Peer,
        keys: PeerKeys,
        addresses: tuple[str, ...],
        silences: int,
        task_status: trio.TaskStatus[bool | None],
    ) -> None:
        """Dial once; `started` when the handshake has succeeded or failed.

        It says True when somebody was reached and gave no answer that holds.
        A failed connection is kept, read and thrown away as a listener's is.
        """

        def end() -> None:
            peer.reason = BUG
            with suppress(RuntimeError):  # it was said before
                task_status.started()

        with self._exchange.qmgr.guard(end):
            await self._dial_once(peer, keys, addresses, silences, task_status)

    async def _dial_once(
        self,
        peer: Peer,
        keys: PeerKeys,
        addresses: tuple[str, ...],
        silences: int,
        task_status: trio.TaskStatus[bool | None],
    ) -> None:
        with trio.CancelScope() as scope:
            wire = await _connect(addresses)
            if wire is None:
                if addresses:
                    peer.reason = NO_CONNECTION
                task_status.started()
                return
            session = None
            try:
                now = trio.current_time()
                scope.deadline = now + silence_duration(self._entropy)
                session = await self._handshake(wire, peer, keys, silences)
                if session is None:
                    task_status.started(True)
                    await Looks(wire, self._entropy).ignore()
            finally:
                if session is None:
                    close_quietly(wire)
            if session is not None:
                scope.deadline = math.inf
                await self._exchange.run_link(session, wire, task_status)

    async def _handshake(
        self, wire: Wire, peer: Peer, keys: PeerKeys, silences: int
    ) -> Session | None:
        moved = self._exchange.moves()
        ours = self._statics()[::-1]  # of this instant: what went is wiped
        initiator = Initiator(
            network=self._network,
            identity=self._identity,
            static=ours[silences % len(ours)],
            peer=keys,
            counter=self._counter.next(),
            clock=self._clock,
            klass=self._klass,
            kem=self._kem,
            entropy=self._entropy,
            directory=self._exchange.directory,
        )
        try:
            wire.try_send(initiator.message_1())
            message_2 = None
            with trio.move_on_after(MESSAGE_SECONDS):
                message_2 = await receive_exactly(wire, CELL_LEN)
            if message_2 is None:
                peer.reason = f"no answer: is our descriptor at {keys.name}?"
                return None
            leaves = trio.current_time() + response_delay(self._entropy)
            message_3 = initiator.receive_message_2_untrusted(message_2)
            await trio.sleep_until(leaves)
            if self._exchange.moves() != moved:
                return None
            wire.try_send(message_3)
            return initiator.session()
        except HandshakeError:
            peer.reason = WRONG_ANSWER
            return None
        finally:
            initiator.wipe()


async def _wait_for_link(peer: Peer, seconds: float) -> None:
    """Wait until somebody has made a link, at most so long."""
    with trio.move_on_after(seconds):
        while not peer.linked:
            await peer.changed.park()


async def _connect(addresses: tuple[str, ...]) -> SocketWire | None:
    """Connect to the first address that answers; None: none does."""
    for address in addresses:
        with trio.move_on_after(CONNECT_SECONDS):
            try:
                stream = await trio.open_tcp_stream(*parse_endpoint(address))
            except OSError:
                continue
            sock = socket.socket(fileno=stream.socket.detach())
            wire = SocketWire(sock)
            wire.fix_buffers()
            return wire
    return None
