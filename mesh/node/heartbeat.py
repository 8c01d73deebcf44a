# SPDX-License-Identifier: MIT
"""Heartbeats: how the n-1 alarm (core/alarm.py) hears that mail still comes in.

    out    at each beat, on the next free stream of a peer's link: a message for the
           first address of this node, with the peer as its source route, without an
           id.  One that finds no stream until the next one is not sent
    back   by the peer's rule of relaying (exchange.py), as any mail of its queue
    in     peer.py asks first of all: a beat is answered with 250 and stored nowhere

There are none, and nothing is held by them, without port 25 (`[delivery] exit`), without
a pool, with `[pool] heartbeats = false`, or where no remailer has an address here.
Heartbeats go by the links' clocks, as all that is on them: no cell more or less.
"""

from collections.abc import Callable, Collection

import trio

from mesh.config import Config
from mesh.core.alarm import DOWN, Alarm
from mesh.core.clock import period_of
from mesh.core.crypto import Entropy, Key, derive_key
from mesh.node.exchange import Exchange


class Heartbeats:
    """One node's; without an alarm nothing of it does anything."""

    def __init__(
        self,
        alarm: Alarm | None,
        address: str,
        exchange: Exchange,
        listed: Callable[[], Collection[str]],
    ) -> None:
        """`listed` names the peers of now."""
        self._alarm = alarm
        self._address = address
        self._exchange = exchange
        self._listed = listed
        exchange.is_ours = self._came

    @classmethod
    def of(
        cls,
        config: Config,
        spool_key: Key,
        entropy: Entropy,
        exchange: Exchange,
        listed: Callable[[], Collection[str]],
    ) -> "Heartbeats":
        """Make them as node.toml says."""
        address = next(iter(config.own_addresses()), "")
        if address.startswith("@"):  # a whole domain
            address = "heartbeat" + address
        pool = config.pool
        wanted = config.delivery.exit and pool.heartbeats and pool.kind != "none"
        alarm = None
        if wanted and address:
            key = derive_key(spool_key, b"mesh/1 heartbeats")
            release = pool.after_hold == "release"
            alarm = Alarm(key, entropy, pool.tick_seconds, release=release)
        return cls(alarm, address, exchange, listed)

    def _came(self, content: bytes) -> bool:
        if self._alarm is None:
            return False
        return self._alarm.came_untrusted(content, trio.current_time())

    def holds(self) -> bool:
        """Say whether nobody may leave the pool now."""
        return self._alarm is not None and self._alarm.holds(trio.current_time())

    def notices(self) -> list[str]:
        """Say what the operator should know."""
        return self._alarm.notices(trio.current_time()) if self._alarm else []

    async def run(self) -> None:
        """Send beats, for ever."""
        if self._alarm is None:
            return
        while True:
            self._beat(self._alarm)
            await trio.sleep(self._alarm.interval)

    def _beat(self, alarm: Alarm) -> None:
        listed = self._listed()
        peers = {n: p for n, p in self._exchange.peers.items() if n in listed}
        links = {
            name: period_of(peer.session.klass) if peer.session else DOWN
            for name, peer in peers.items()
        }
        beat = alarm.beat(trio.current_time(), links)
        if beat is not None:
            name, content = beat
            peers[name].beat(f"@{name}:{self._address}", content)
