# SPDX-License-Identifier: MIT
"""Heartbeats: how the n-1 alarm (core/alarm.py) hears that mail still comes in.

    out    for each peer, on the next free stream of its link: a message for the
           first address of this node, with the peer as its source route, without an
           id.  One that finds no stream until the next one is not sent
    back   by the peer's rule of relaying (exchange.py), as any mail of its queue
    in     peer.py asks first of all: a beat is answered with 250 and stored nowhere

None is sent, and nothing is held, without port 25 (`[delivery] exit`), without a pool,
with `[pool] heartbeats = false` (the default), or where no remailer has an address here.
What comes back is known all the same: it may have waited at a peer.  Which peers have
given one back is kept in `state/heartbeats`, so that a restart in an alarm ends no alarm.
Heartbeats go by the links' clocks, as all that is on them: no cell more or less, but where
the clock is greedy.
"""

from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path
from typing import Final

import trio

from mesh.config import Config
from mesh.core.alarm import DOWN, Alarm
from mesh.core.clock import period_of
from mesh.core.crypto import Entropy, Key, derive_key
from mesh.core.encoding import encode
from mesh.node.counters import read_statement, replace_file
from mesh.node.exchange import Exchange

LOOK_SECONDS: Final = 1.0
"""Between two looks at which links are up."""
PAUSE_SECONDS: Final = 0.01
"""Between two looks at the least, whatever a tick is."""


class Memory:
    """A small file: the names of peers that have given heartbeats back."""

    def __init__(self, path: Path) -> None:
        self._path = path
        known = read_statement(path)
        names = known if isinstance(known, list) else []
        self.names = [name for name in names if type(name) is str]

    async def keep(self, names: list[str]) -> None:
        """Write them, if they are others; on a full disk later."""
        if names == self.names:
            return
        with suppress(OSError):
            await trio.to_thread.run_sync(replace_file, self._path, encode([*names]))
            self.names = names


class Heartbeats:
    """One node's."""

    def __init__(
        self,
        alarm: Alarm,
        address: str,
        exchange: Exchange,
        listed: Callable[[], Collection[str]],
        memory: Memory,
    ) -> None:
        """`listed` names the peers of now; no `address`: no beats."""
        self._alarm = alarm
        self._memory = memory
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
        """Make them as node.toml says; ConfigError: state/heartbeats is not ours."""
        address = next(iter(config.own_addresses()), "")
        if address.startswith("@"):  # a whole domain
            address = "heartbeat" + address
        pool = config.pool
        is_wanted = config.delivery.exit and pool.heartbeats and pool.kind != "none"
        key = derive_key(spool_key, b"mesh/1 heartbeats")
        release = pool.after_hold == "release"
        memory = Memory(config.state_dir / "heartbeats")
        if not is_wanted:
            address = ""
        alarm = Alarm(
            key, entropy, pool.tick_seconds, release=release,
            before=memory.names if address else (),
        )  # fmt: skip
        return cls(alarm, address, exchange, listed, memory)

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
            await self._memory.keep(self._alarm.heard())
            now = trio.current_time()
            # A link that comes up meanwhile is seen soon, and a busy loop is none.
            due = min(self._alarm.next_due(now), now + LOOK_SECONDS)
            await trio.sleep_until(max(due, now + PAUSE_SECONDS))

    def _beat(self) -> None:
        # At the start who is listed is not taken up yet: his link is down.
        peers, links = self._exchange.peers, dict.fromkeys(self._listed(), DOWN)
        for name, peer in peers.items():
            if peer.session and name in links:
                links[name] = period_of(peer.session.klass)
        for name, content in self._alarm.beats(trio.current_time(), links):
            peers[name].beat(f"@{name}:{self._address}", content)
