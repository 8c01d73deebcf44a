# SPDX-License-Identifier: MIT
"""What a prober says to a port: as a stranger, with the descriptor, as a former peer.

    stranger    knows an address, and what went over the wire to it: nothing (half-open),
                noise of lengths around a message's, a TLS hello, EHLO, GET, a peer's own
                hello said again
    holder      has the descriptor, so he can make a hello that opens: one of keys that
                nobody knows, cut short, run on, twice, or an envelope with noise in it
    removed     was a listed peer: his own keys, a counter that grows; and a hello of the
                time when he was one, said again

    close       our FIN with the last octet, some time after it, or never

A `Script` makes them, one after the other, from the generator that it is given; keys
and nonces are the system's.
"""

import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final, Literal, TypeAlias

import numpy as np

from mesh.core.cell import CELL_LEN
from mesh.core.clock import Clock
from mesh.core.crypto import XNONCE_LEN, Key, MlKem768, SystemEntropy, signing_key
from mesh.core.handshake import (
    MESSAGE_1,
    Initiator,
    PeerKeys,
    hello_key,
    next_counter,
)
from mesh.core.symmetric import seal_outer

Kind: TypeAlias = Literal["stranger", "holder", "removed"]
KINDS: Final[tuple[Kind, ...]] = ("stranger", "holder", "removed")
LENGTHS: Final = (1, CELL_LEN - 1, CELL_LEN, CELL_LEN + 1, 20_000)
"""Octets, around a message's length and far beyond."""
CLOSE_SECONDS: Final = 1.5
"""A late FIN comes within; an honest answer takes 0.1 to 1.1 s."""
RATE_CLASS: Final = 3
"""One cell a second, as most offer."""

_TEXTS: Final[Mapping[str, bytes]] = {
    "nothing": b"",
    "EHLO": b"EHLO prober.example\r\n",
    "GET": b"GET / HTTP/1.1\r\nHost: prober.example\r\n\r\n",
}


@dataclass(frozen=True)
class Probe:
    """One connection's worth: what is sent, and when we close."""

    kind: Kind
    name: str
    octets: bytes
    close: float | None
    """Seconds from our last octet to our FIN; None: we never send one."""


@dataclass(frozen=True)
class Target:
    """What a prober can know of a node."""

    network: str
    keys: PeerKeys
    """Of its descriptor."""
    heard: bytes
    """A peer's hello, from the wire."""
    identity: Key
    static: Key
    """A former peer's own."""
    earlier: bytes
    """A hello of that one, of the time when it was listed."""


class Script:
    """Makes probes; no two are alike."""

    def __init__(self, target: Target, rng: np.random.Generator) -> None:
        self._target, self._rng = target, rng
        self._entropy, self._kem = SystemEntropy(), MlKem768()
        self._counter = 0
        self._last = b""
        self._says: Mapping[Kind, Mapping[str, Callable[[], bytes]]] = {
            "stranger": {
                **{name: partial(bytes, text) for name, text in _TEXTS.items()},
                **{f"noise {length}": partial(rng.bytes, length) for length in LENGTHS},
                "TLS hello": tls_hello,
                "replay": lambda: target.heard,
            },
            "holder": {
                "hello": self._unlisted,
                "hello cut short": lambda: self._unlisted()[:-1],
                "hello and more": lambda: self._unlisted() + rng.bytes(CELL_LEN),
                "hello again": lambda: self._last or self._unlisted(),
                "noise in its envelope": self._hollow,
            },
            "removed": {
                "hello": self._removed,
                "hello and more": lambda: self._removed() + rng.bytes(CELL_LEN),
                "hello again": lambda: self._last or self._removed(),
                "earlier hello": lambda: target.earlier,
            },
        }

    def names(self, kind: Kind) -> list[str]:
        """Name what one kind says."""
        return list(self._says[kind])

    def next(self, kind: Kind) -> Probe:
        """Make one more, all alike likely; half of them close at once."""
        names = self.names(kind)
        name = names[int(self._rng.integers(len(names)))]
        close: float | None = 0.0
        if self._rng.random() < 0.5:
            close = float(self._rng.uniform(0.0, CLOSE_SECONDS))
            close = close if self._rng.random() < 0.5 else None
        return Probe(kind, name, self._says[kind][name](), close)

    def hello(self, identity: Key, static: Key) -> bytes:
        """Make a message 1 to the target, with these keys."""
        self._counter = next_counter(self._counter, time.time_ns())
        initiator = Initiator(
            network=self._target.network, identity=identity, static=static,
            peer=self._target.keys, counter=self._counter, clock=Clock.RENEWAL,
            klass=RATE_CLASS, kem=self._kem, entropy=self._entropy,
        )  # fmt: skip
        try:
            return initiator.message_1()
        finally:
            initiator.wipe()

    def _unlisted(self) -> bytes:
        identity = signing_key(self._entropy.key())
        self._last = self.hello(identity, self._entropy.key())
        return self._last

    def _removed(self) -> bytes:
        self._last = self.hello(self._target.identity, self._target.static)
        return self._last

    def _hollow(self) -> bytes:
        keys = self._target.keys
        key = hello_key(self._target.network, keys.identity, keys.link_keys[0])
        nonce = self._rng.bytes(XNONCE_LEN)
        return seal_outer(key, nonce, b"1", self._rng.bytes(MESSAGE_1.size))


def tls_hello() -> bytes:
    """Make a ClientHello as today's programs send it."""
    context = ssl.create_default_context()
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    side = context.wrap_bio(incoming, outgoing, server_hostname="www.example.org")
    try:
        side.do_handshake()
    except ssl.SSLWantReadError:
        return outgoing.read()
    raise AssertionError("a handshake without the other side")
