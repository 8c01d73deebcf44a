# SPDX-License-Identifier: MIT
"""The exchange: all peers, their links that come and go, and the one rule of relaying.

A peer may hand over mail for addresses that this node serves, and `<@me:x@peer>` back
to itself; anything else is 550, so that no peer uses us as a relay.

Two links to one peer that are up: election.py says which stays, the other is closed.
A connection's class and clock come from what both nodes were started with, and stay: a
replacement has the same ones, and another takes effect at a node's start, an hour that
its operator chose, and not when a queue grows.
What a link carries to and from the queue is peer.py's.  Nothing here parses, seals, or
decides when a cell leaves.
"""

from collections.abc import Callable
from typing import Final

import trio

from mesh.core.chance import uniform
from mesh.core.crypto import Entropy
from mesh.core.envelope import without_route
from mesh.core.handshake import NO_DIRECTORY, Session
from mesh.core.reply import NO_SUCH_RECIPIENT, Reply
from mesh.errors import LocalProtocolError
from mesh.node.gossip import Gossiping
from mesh.node.inside import Port
from mesh.node.pacing import BROKEN, CLOSED, SILENT, STALLED, Pacer, carry
from mesh.node.peer import Peer
from mesh.node.qmgr import QueueManager
from mesh.node.routing import LOCAL, REFUSED
from mesh.node.wire import Wire

LIFE_SECONDS: Final = (1800.0, 3600.0)
"""A connection is replaced at an age drawn at its birth."""
NO_ANSWER: Final = "no answer: does it list our latest descriptor?"
_ENDS: Final = {
    CLOSED: "link lost: closed at the other side, dialling",
    SILENT: "link lost: silence, dialling",
    BROKEN: "link lost: damaged cells, dialling",
    STALLED: "link lost: this node stood still, dialling",
}


class Exchange:
    """All peers of this node, and the links that come and go."""

    def __init__(
        self,
        *,
        name: str,
        identity: bytes,
        qmgr: QueueManager,
        max_message: int,
        entropy: Entropy,
        refuses: Callable[[str], bool] = lambda _: False,
        gossip: Gossiping | None = None,
        pacer: Pacer | None = None,
    ) -> None:
        """`refuses` says who wants no mail from this node; `pacer`: pacing.py."""
        self._pacer = pacer
        self.moves = pacer.standstill.moves if pacer else _none
        """How often this machine may have become another one."""
        self._refuses = refuses
        self.is_ours: Callable[[bytes], bool] = lambda _: False
        """Takes a heartbeat that a peer brings back; set by heartbeat.py."""
        self._gossip = gossip
        if gossip:
            gossip.guard = qmgr.guard
        self.name = name
        self.identity = identity
        self.qmgr = qmgr
        self.entropy = entropy
        self._max_message = max_message
        self.peers: dict[str, Peer] = {}
        self.closing = False
        """The node ends: no link is made any more."""
        self._nursery: trio.Nursery | None = None
        self._ended = False

    def accepts(self, peer: str, path: str) -> Reply | None:
        """Apply the one rule of relaying: what this node serves, or back to its sender."""
        address = without_route(path)
        if self._refuses(address):
            return REFUSED
        place = self.qmgr.router(address)
        if place is not None and (
            place.startswith(LOCAL) or self.qmgr.alias(address) != address
        ):
            return None
        if place == peer and path.startswith(f"@{self.name}:"):
            return None
        return NO_SUCH_RECIPIENT

    async def run(self, task_status: trio.TaskStatus[None]) -> None:
        """Serve the peers' reading from the disk, for ever."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            if self._gossip:
                nursery.start_soon(self._gossip.run)
            task_status.started()
            try:
                await trio.sleep_forever()
            finally:
                self._ended = True

    @property
    def directory(self) -> tuple[int, bytes]:
        """Which directory we have, to be told in a handshake."""
        return self._gossip.head if self._gossip else NO_DIRECTORY

    def peer(self, name: str, identity: bytes) -> Peer:
        """Give the peer of this name, made when first asked for."""
        peer = self.peers.get(name)
        if peer is None or peer.identity != identity:
            if self._nursery is None:
                raise LocalProtocolError("the exchange does not run")
            peer = self.peers[name] = Peer(
                name=name,
                identity=identity,
                our_identity=self.identity,
                qmgr=self.qmgr,
                refusal=self.accepts,
                our_name=self.name,
                max_message=self._max_message,
                gossip=self._gossip,
                is_ours=lambda content: self.is_ours(content),
            )
            if not self._ended:  # the dialer may begin while all ends
                self._nursery.start_soon(peer.fetch_forever)
        return peer

    async def run_link(
        self,
        session: Session,
        wire: Wire,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> str:
        """Carry one link until it ends; returns why.  Started: the peer has its port.

        The wire is closed then, and the session's keys are wiped, whatever happens.
        """
        try:
            return await self._run_link(session, wire, task_status)
        finally:
            wire.close()
            session.wipe()

    async def _run_link(
        self, session: Session, wire: Wire, task_status: trio.TaskStatus[None]
    ) -> str:
        if self.closing:
            task_status.started()
            return "closing"
        peer = self.peer(session.peer.name, session.peer.identity)
        birth = trio.current_time()
        port = Port(peer, session, birth + uniform(self.entropy, *LIFE_SECONDS))
        peer.admit(port)
        task_status.started()
        reason = "replaced"
        try:
            with port.scope:
                reason = await carry(
                    wire, session, port, self.entropy, self._pacer, self.moves
                )
                if port.retired:
                    reason = "replaced"
                elif port.strand.up:
                    peer.reason = _ENDS[reason]
                else:
                    peer.reason = NO_ANSWER
        finally:
            peer.ended(port)
        return reason

    def close(self) -> None:
        """Let every link say in its next cell that it ends; make no new ones."""
        self.closing = True
        for peer in self.peers.values():
            for port in peer.ports:
                port.close()


def _none() -> int:
    """Where time is not real no machine stands still."""
    return 0
