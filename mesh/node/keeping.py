# SPDX-License-Identifier: MIT
"""Keeping links as descriptors say: who comes is dialled, who is removed is cut off.

    a listed peer                         its link
    new                                   dialled
    removed, or of another identity       ends at once
    of other link keys, addresses, terms  stays: the next handshake goes by the new ones
    expired, or its hour of leaving came  says in its next cell that it ends; none is made
    renewed after that                    dialled

and when our own hour has come, all say so.  Whoever has expired or left stays listed: its
mail waits and comes back after its days, rather than leave in clear.

`adopt` takes up a change: each second, and at once when the registry has another
directory.  Whoever was removed is looked for first, and nobody gets in meanwhile, for the
table that is asked has changed by then.  Reading is a thread's work, and what then
is done for thousands of peers is done some at a time, so that no cell waits for it.
Mail whose address goes elsewhere now is routed anew, and no other: a descriptor that was
renewed moves none.  Stray mail is, too: links give theirs back a moment after they end;
so what waits for a place that is gone is looked for each time.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final

import trio

from mesh.core.directory import Listed
from mesh.core.gate import Gate
from mesh.core.handshake import PeerKeys
from mesh.node.calm import calm_for
from mesh.node.dialer import Dialer
from mesh.node.exchange import Exchange
from mesh.node.peers import Peers
from mesh.node.qmgr import QueueManager, everywhere
from mesh.node.routing import EXIT, LOCAL, UNROUTED

LOOK_SECONDS: Final = 1.0
"""Between two looks at peers.d: a change counts within 2 s."""
STRETCH: Final = 64
"""Peers seen to between two turns of the loop: some 2 ms."""
STRETCH_SECONDS: Final = 0.016
"""From one stretch of new peers to the next: dialling each takes some 0.1 ms, again and
again while nobody answers; a thousand have their turn in a quarter of a second."""
TASK_LEN: Final = 1024
"""Octets, or so, of a peer's dialling task."""


@dataclass
class _Kept:
    """One dialling task: whom, by the keys of now."""

    keys: PeerKeys
    scope: trio.CancelScope


class Keeping:
    """One dialling task a listed peer."""

    def __init__(
        self,
        peers: Peers,
        gate: Gate,
        dialer: Dialer,
        exchange: Exchange,
        qmgr: QueueManager,
        *,
        has_left: Callable[[], bool] = lambda: False,
        unix_time: Callable[[], float] = lambda: time.time(),
    ) -> None:
        """`has_left` says whether our own hour of leaving has come."""
        self._peers = peers
        self._gate = gate
        self._dialer = dialer
        self._exchange = exchange
        self._qmgr = qmgr
        self._has_left = has_left
        self._unix_time = unix_time
        self._adopted = False
        self._half_done = False
        self._routed = peers.snapshot.directory
        """By which what waits was routed last."""
        self._kept: dict[str, _Kept] = {}
        self._news = trio.Event()
        self._turn = trio.Lock()

    def wake(self) -> None:
        """Look now; on the Trio thread."""
        self._news.set()

    async def run(self, nursery: trio.Nursery) -> None:
        """Look each second, and when woken; what is kept lives in the nursery."""
        while True:
            with trio.move_on_after(LOOK_SECONDS):
                await self._news.wait()
            self._news = trio.Event()
            await self.adopt(nursery)

    async def adopt(self, nursery: trio.Nursery) -> None:
        """Take up what the descriptors say now."""
        async with self._turn:
            await self._adopt(nursery)

    async def _adopt(self, nursery: trio.Nursery) -> None:
        half_done = self._half_done
        news, lost = await trio.to_thread.run_sync(self._look)
        changed = news or half_done
        by_name = self._peers.snapshot.by_name
        self._half_done = changed  # nobody tells it twice
        if changed or not self._adopted:
            others = by_name.keys() ^ self._kept.keys()
            with calm_for(TASK_LEN * len(others)):
                await self._adopt_peers(nursery, by_name)
            self._adopted = True
        self._end_what_is_over()
        self._qmgr.reroute(
            lambda place: place.startswith(LOCAL) or place in by_name,
            changed=changed,
            # Half done: what came meanwhile went by a directory that is not compared.
            moved=everywhere if half_done else partial(may_move, lost),
        )
        self._half_done = False

    def _look(self) -> tuple[bool, frozenset[str] | None]:
        """Look whether there is something new, and who lost addresses by it."""
        if not self._peers.poll():
            return False, None
        before, self._routed = self._routed, self._peers.snapshot.directory
        return True, before.lost_to(self._routed)

    async def _adopt_peers(
        self, nursery: trio.Nursery, by_name: Mapping[str, Listed]
    ) -> None:
        for count, (name, kept) in enumerate(list(self._kept.items()), 1):
            listed = by_name.get(name)
            self._review(name, kept, None if listed is None else keys_of(listed))
            if count % STRETCH == 0:
                await trio.lowlevel.checkpoint()
        new = [name for name in by_name if name not in self._kept]
        for count, name in enumerate(new, 1):
            keys = keys_of(by_name[name])
            kept = self._kept[name] = _Kept(keys, trio.CancelScope())
            nursery.start_soon(self._keep, kept)
            if count % STRETCH == 0:
                await trio.sleep(STRETCH_SECONDS)

    def _review(self, name: str, kept: _Kept, keys: PeerKeys | None) -> None:
        """Go on with one that is kept, by its keys of now, or let go of it."""
        if keys is not None and keys.identity != kept.keys.identity:
            keys = None
        if keys is not None:
            for link_key in set(kept.keys.link_keys) - set(keys.link_keys):
                self._gate.retire(link_key)
            kept.keys = keys
            return
        for link_key in kept.keys.link_keys:
            self._gate.forget(link_key)
        kept.scope.cancel()
        del self._kept[name]
        if name in self._exchange.peers:
            self._exchange.peers[name].close_links()

    async def _keep(self, kept: _Kept) -> None:
        with kept.scope:
            await self._dialer.keep(
                lambda: kept.keys, lambda: self.endpoints(kept.keys.name)
            )

    def _end_what_is_over(self) -> None:
        """Let links say that they end where the peer's time, or ours, has come."""
        for name, peer in self._exchange.peers.items():
            if peer.ports and not self._may_link(name):
                for port in peer.ports:
                    port.close()

    def _may_link(self, name: str) -> bool:
        listed = self._peers.snapshot.by_name.get(name)
        if listed is None or self._has_left():
            return False
        return is_here(listed, self._unix_time())

    def find(self, link_key: bytes) -> PeerKeys | None:
        """Give the peer of a link key, if it may have a link now."""
        listed = self._peers.snapshot.by_link_key.get(link_key)
        if listed is None or not self._may_link(listed.descriptor.name):
            return None
        return keys_of(listed)

    def endpoints(self, name: str) -> tuple[str, ...]:
        """Give what a peer may be dialled at now; nothing when it may not."""
        listed = self._peers.snapshot.by_name.get(name)
        return listed.descriptor.addresses if listed and self._may_link(name) else ()


def may_move(lost: frozenset[str] | None, place: str) -> bool:
    """Say whether mail that waits there may be for another place now.

    Of an address that nobody has, days decide, too: it is looked at each time.
    """
    if place == UNROUTED:
        return True
    return lost is not None and (place in lost or place.startswith(EXIT))


def is_here(listed: Listed, now: float) -> bool:
    """Say whether its descriptor holds and its hour of leaving has not come."""
    descriptor = listed.descriptor
    return descriptor.valid_at(now) and not descriptor.has_left(now)


def keys_of(listed: Listed) -> PeerKeys:
    """Take out of a descriptor what a handshake needs."""
    descriptor = listed.descriptor
    return PeerKeys(descriptor.name, descriptor.identity, descriptor.link_keys)
