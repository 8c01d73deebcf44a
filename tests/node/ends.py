# SPDX-License-Identifier: MIT
"""Half a node with real keys, a listener and a dialer: for tests of both."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import trio

from mesh.core.clock import Clock
from mesh.core.crypto import Key, MlKem768, signing_public, x25519_public
from mesh.core.gate import Gate
from mesh.core.handshake import Initiator, PeerKeys
from mesh.node.counters import OwnCounter, PeerCounters
from mesh.node.dialer import Dialer
from mesh.node.listener import Listener
from tests.descriptors import identity_of, link_key_of
from tests.harness import FixedEntropy, Half, half

NETWORK = "test"


def keys_of(name: str) -> PeerKeys:
    return PeerKeys(
        name,
        signing_public(identity_of(name)),
        (x25519_public(link_key_of(name)),),
    )


def keeps(name: str) -> Callable[[], PeerKeys]:
    """What a dialer asks at each dial."""
    return lambda: keys_of(name)


@dataclass
class End:
    """One node's links; `listed` may be changed at any time."""

    half: Half
    gate: Gate
    listener: Listener
    dialer: Dialer
    counters: PeerCounters
    listed: set[str] = field(default_factory=set)
    statics: list[Key] = field(default_factory=list)

    def up(self, name: str) -> bool:
        peer = self.half.exchange.peers.get(name)
        return peer is not None and peer.up

    def links(self, name: str) -> int:
        peer = self.half.exchange.peers.get(name)
        return len(peer.ports) if peer else 0


@asynccontextmanager
async def end(
    folder: Path,
    name: str,
    *listed: str,
    clock: Clock = Clock.RENEWAL,
    klass: int = 3,
    keys_of: Callable[[str], PeerKeys] = keys_of,
    routes: dict[str, str] | None = None,
) -> AsyncIterator[End]:
    """Run one; `keys_of` says what it knows of the others, asked each time."""
    entropy = FixedEntropy("end " + name)
    names = set(listed)

    def find_peer(link_key: bytes) -> PeerKeys | None:
        found = [keys_of(each) for each in names]
        return next((keys for keys in found if link_key in keys.link_keys), None)

    home = folder / (name + " counters")
    home.mkdir(exist_ok=True)
    counters = PeerCounters(home / "peers")
    identity = identity_of(name)
    public = signing_public(identity)
    async with half(folder, name, routes or {}, identity=public) as inner:
        kem = MlKem768()
        statics = [link_key_of(name)]
        gate = Gate(
            network=NETWORK,
            identity=identity,
            statics=statics,
            find_peer=find_peer,
            counters=counters.last,
            clock=clock,
            klass=klass,
            kem=kem,
            entropy=entropy,
        )
        listener = Listener(gate, counters, inner.exchange, entropy)
        dialer = Dialer(
            network=NETWORK,
            identity=identity,
            statics=lambda: statics,
            counter=OwnCounter(home / "own", int(trio.current_time() * 1e9)),
            clock=clock,
            klass=klass,
            kem=kem,
            exchange=inner.exchange,
            entropy=entropy,
        )
        yield End(inner, gate, listener, dialer, counters, names, statics)


def hand(
    name: str,
    to: str,
    counter: int = 1,
    *,
    identity: str | None = None,
    link: str | None = None,
) -> Initiator:
    """A dialler of our own making, perhaps with another's keys."""
    return Initiator(
        network=NETWORK,
        identity=identity_of(identity or name),
        static=link_key_of(link or name),
        peer=keys_of(to),
        counter=counter,
        clock=Clock.RENEWAL,
        klass=3,
        kem=MlKem768(),
        entropy=FixedEntropy(f"hand {name} {counter}"),
    )
