# SPDX-License-Identifier: MIT
"""Heartbeats: how the n-1 alarm (core/alarm.py) hears that mail still comes in.

    out    for each peer, on the next free stream of its link: a message for the
           first address of this node, with the peer as its source route, without an
           id.  One that finds no stream until the next one is not sent
    back   by the peer's rule of relaying (exchange.py), as any mail of its queue
    in     peer.py asks first of all: a beat is answered with 250 and stored nowhere

None is sent, and nothing is held, without port 25 (`[delivery] exit`), without a pool,
with `[pool] heartbeats = false` (the default), or where no remailer has an address here.
What comes back is known all the same: it may have waited at a peer.  Heartbeats go by the
links' clocks, as all that is on them: no cell more or less, but where the clock is greedy.
"""

from collections.abc import Callable, Collection
from typing import Final

import trio

from mesh.config import Config
from mesh.core.alarm import DOWN, Alarm
from mesh.core.clock import period_of
from mesh.core.crypto import Entropy, Key, derive_key
from mesh.node.exchange import Exchange

LOOK_SECONDS: Final = 1.0
"""Between two looks at which links are up."""
PAUSE_SECONDS: Final = 0.01
"""Between two looks at the least, whatever a tick is."""


class Heartbeats:
    """One node's."""

    def __init__(
        self,
        alarm: Alarm,
        address: str,
        exchange: Exchange,
        listed: Callable[[], Collection[str]],
    ) -> None:
        """`listed` names the peers of now; no `address`: no beats."""
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
        key = derive_key(spool_key, b"mesh/1 heartbeats")
        release = pool.after_hold == "release"
        alarm = Alarm(key, entropy, pool.tick_seconds, release=release)
        return cls(alarm, address if wanted else "", exchange, listed)

    def _came(self, content: bytes) -> bool:
        return self._alarm.came_untrusted(content, trio.current_time())

    def holds(self) -> bool:
        """Say whether nobody may leave the pool now."""
        return self._alarm.holds(trio.current_time())

    def notices(self) -> list[str]:
        """Say what the operator should know."""
        return self._alarm.notices(trio.current_time())

    async def run(self) -> None:
        """Send beats, for ever."""
        while self._address:
            self._beat()
            now = trio.current_time()
            # A link that comes up meanwhile is seen soon, and a busy loop is none.
            due = min(self._alarm.next_due(now), now + LOOK_SECONDS)
            await trio.sleep_until(max(due, now + PAUSE_SECONDS))

    def _beat(self) -> None:
        listed = self._listed()
        peers = {n: p for n, p in self._exchange.peers.items() if n in listed}
        links = {
            name: period_of(peer.session.klass) if peer.session else DOWN
            for name, peer in peers.items()
        }
        for name, content in self._alarm.beats(trio.current_time(), links):
            peers[name].beat(f"@{name}:{self._address}", content)
