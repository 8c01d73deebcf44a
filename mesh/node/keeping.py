# SPDX-License-Identifier: MIT
"""Keeping links as peers.d says: who comes is dialled, who leaves is cut off at once.

`adopt` takes up a change as a whole: links of removed peers end, new ones are dialled,
stray mail is routed anew.  Links give their mail back a moment after they end; so what
waits for a place that is gone is looked for each time.
"""

import time

import trio

from mesh.core.directory import Listed
from mesh.core.gate import Gate
from mesh.core.handshake import PeerKeys
from mesh.node.dialer import Dialer
from mesh.node.exchange import Exchange
from mesh.node.peers import Peers
from mesh.node.qmgr import QueueManager
from mesh.node.routing import LOCAL


class Keeping:
    """One dialling task a listed peer."""

    def __init__(
        self,
        peers: Peers,
        gate: Gate,
        dialer: Dialer,
        exchange: Exchange,
        qmgr: QueueManager,
    ) -> None:
        self._peers = peers
        self._gate = gate
        self._dialer = dialer
        self._exchange = exchange
        self._qmgr = qmgr
        self._adopted = False
        self._kept: dict[str, tuple[PeerKeys, trio.CancelScope]] = {}

    def adopt(self, nursery: trio.Nursery) -> None:
        """Take up what peers.d says now."""
        changed = self._peers.poll()
        by_name = self._peers.snapshot.by_name
        if changed or not self._adopted:
            self._adopted = True
            listed = {name: keys_of(peer) for name, peer in by_name.items()}
            self._adopt_peers(nursery, listed)
        self._qmgr.reroute(
            lambda place: place.startswith(LOCAL) or place in by_name,
            changed=changed,
        )

    def _adopt_peers(self, nursery: trio.Nursery, listed: dict[str, PeerKeys]) -> None:
        for name, (keys, scope) in list(self._kept.items()):
            if listed.get(name) != keys:
                scope.cancel()
                del self._kept[name]
                for link_key in keys.link_keys:
                    self._gate.forget(link_key)
                if name in self._exchange.peers:
                    self._exchange.peers[name].close_links()
        for name, keys in listed.items():
            if name not in self._kept:
                scope = trio.CancelScope()
                self._kept[name] = keys, scope
                nursery.start_soon(self._keep, keys, scope)

    async def _keep(self, keys: PeerKeys, scope: trio.CancelScope) -> None:
        with scope:
            await self._dialer.keep(keys, lambda: self.endpoints(keys.name))

    def endpoints(self, name: str) -> tuple[str, ...]:
        """Give what a peer may be dialled at now; nothing when it has expired."""
        listed = self._peers.snapshot.by_name.get(name)
        if listed is None or not listed.descriptor.valid_at(time.time()):
            return ()
        return listed.descriptor.addresses


def keys_of(listed: Listed) -> PeerKeys:
    """Take out of a descriptor what a handshake needs."""
    descriptor = listed.descriptor
    return PeerKeys(descriptor.name, descriptor.identity, descriptor.link_keys)
