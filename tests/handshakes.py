# SPDX-License-Identifier: MIT
"""Handshakes whose every value is known: runs, and parties that repeat them."""

import gc
import hashlib
import random
import struct
from collections.abc import Sequence
from pathlib import Path

from mesh.core import memory
from mesh.core.clock import Clock
from mesh.core.crypto import Key, MlKem768, signing_key
from mesh.core.gate import Gate
from mesh.core.handshake import Initiator, PeerKeys
from tests.straightline import (
    Run,
    Values,
    dh_public,
    id_public,
    kem_private,
    kem_public,
    xs,
)

VECTOR = Path(__file__).parent / "vectors" / "handshake.txt"
NETWORK = "test"
COUNTER = 1000
I_KLASS, I_CLOCK = 9, Clock.GREEDY
R_KLASS, R_CLOCK = 4, Clock.RENEWAL
I_TERMS = bytes([I_KLASS, I_CLOCK])
R_TERMS = bytes([R_KLASS, R_CLOCK])
DIRECTORY = (77, b"\x5a" * 32)
LOW_ORDER = (
    bytes(32),
    b"\1" + bytes(31),
    bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
    bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
    bytes.fromhex("ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
    bytes.fromhex("edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
    bytes.fromhex("eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
)
"""Points whose multiples by any scalar are zero (RFC 7748, section 6.1)."""


def draw(name: str, length: int = 32) -> bytes:
    return hashlib.shake_256(name.encode()).digest(length)


def hello(counter: int = COUNTER, terms: bytes = I_TERMS) -> bytes:
    return struct.pack(">Q", counter) + terms + bytes(6)


def kem_seed(v_name: str) -> bytes:
    return draw(v_name + " kem", 64)


def values(name: str, *, initiator: str = "ivy", responder: str = "rob") -> Values:
    """A run between two named nodes; `name` fixes what is ephemeral in it.

    The ciphertext is none that anybody encapsulated: ML-KEM's implicit rejection
    gives it a secret all the same, and always the same one.
    """
    ct = draw(name + " ct", 1088)
    return Values(
        network=NETWORK.encode(),
        id_i=draw(initiator + " id"),
        s_i=draw(initiator + " link"),
        id_r=draw(responder + " id"),
        s_r=draw(responder + " link"),
        n1=draw(name + " n1", 24),
        e_i=draw(name + " e_i"),
        k_i=kem_public(kem_seed(name)),
        hello=hello(),
        n2=draw(name + " n2", 24),
        e_r=draw(name + " e_r"),
        ct=ct,
        ss=kem_private(kem_seed(name)).decapsulate(ct),
        answer=R_TERMS + bytes(14),
        n3=draw(name + " n3", 24),
        directory=struct.pack(">Q", DIRECTORY[0]) + DIRECTORY[1],
    )


def peer(name: str) -> PeerKeys:
    link_keys = (dh_public(draw(name + " link")),)
    return PeerKeys(name, id_public(draw(name + " id")), link_keys)


def identity(name: str) -> Key:
    return signing_key(Key.from_bytes(draw(name + " id")))


def static(name: str) -> Key:
    return Key.from_bytes(draw(name + " link"))


class Scripted:
    """Entropy that hands out a run's own values, in order, over and over."""

    def __init__(self, octets: list[bytes], keys: list[bytes]) -> None:
        self._octets = octets
        self._keys = keys

    def octets(self, length: int) -> bytes:
        self._octets.append(self._octets.pop(0))
        assert len(self._octets[-1]) == length
        return self._octets[-1]

    def key(self) -> Key:
        self._keys.append(self._keys.pop(0))
        return Key.from_bytes(self._keys[-1])


class FixedPrivate:
    def __init__(self, seed: bytes) -> None:
        self._private = kem_private(seed)

    def decapsulate(self, ciphertext: bytes) -> Key:
        return Key.from_bytes(self._private.decapsulate(ciphertext))


class FixedKem:
    """ML-KEM-768 with the run's own key pair, ciphertext and secret.

    A public key of another run is checked by the real one and gets the same pair.
    """

    def __init__(self, seed: bytes, v: Values) -> None:
        self._v = v
        self._seed = seed

    def keypair(self) -> tuple[FixedPrivate, bytes]:
        return FixedPrivate(self._seed), self._v.k_i

    def encapsulate(self, public: bytes) -> tuple[Key, bytes]:
        if public != self._v.k_i:
            MlKem768().encapsulate(public)
        return Key.from_bytes(self._v.ss), self._v.ct


def dial(
    v: Values, name: str, *, initiator: str = "ivy", responder: str = "rob"
) -> Initiator:
    """The initiator of a run, with our own code."""
    return Initiator(
        network=NETWORK,
        identity=identity(initiator),
        static=static(initiator),
        peer=peer(responder),
        counter=struct.unpack(">Q", v.hello[:8])[0],
        clock=I_CLOCK,
        klass=I_KLASS,
        kem=FixedKem(kem_seed(name), v),
        entropy=Scripted([v.n1, v.n3], [v.e_i]),
        directory=DIRECTORY,
    )


class Listing:
    """A responder's list of peers, which a test may change at any time."""

    def __init__(self, *names: str) -> None:
        self.peers = {key: peer(name) for name in names for key in peer(name).link_keys}
        self.asked: list[bytes] = []

    def __call__(self, link_key: bytes) -> PeerKeys | None:
        self.asked.append(link_key)
        return self.peers.get(link_key)


def gate(
    v: Values,
    name: str,
    *,
    listing: Listing | None = None,
    counters: dict[bytes, int] | None = None,
    statics: tuple[str, ...] = ("rob",),
    responder: str = "rob",
) -> Gate:
    """The responder of a run, with our own code; the decoy key is drawn first."""
    made = Gate(
        network=NETWORK,
        identity=identity(responder),
        statics=[static(name) for name in statics],
        find_peer=Listing("ivy", "una") if listing is None else listing,
        counters={} if counters is None else counters,
        clock=R_CLOCK,
        klass=R_KLASS,
        kem=FixedKem(kem_seed(name), v),
        entropy=Scripted([v.n2], [b"decoy".ljust(32), v.e_r]),
    )
    made.entropy = Scripted([v.n2], [v.e_r])
    return made


def live_keys() -> int:
    """Keys that lie in the slab at this instant, also in a forgotten frame."""
    slab = memory._slab
    slots = len(slab._regions) * (memory.SLAB_LEN // memory.SLOT_LEN)
    return slots - len(slab._free)


def settled_keys() -> int:
    """Keys in the slab when what earlier tests left behind is gone."""
    gc.collect()
    return live_keys()


def vector() -> tuple[Values, Run]:
    """The recorded run, from its file alone: `name: hex` lines; # for comments."""
    lines = VECTOR.read_text(encoding="ascii").splitlines()
    pairs = [line.split(": ", 1) for line in lines if not line.startswith("#")]
    text = {name: value for name, value in pairs if name == "network"}
    octets = {name: bytes.fromhex(value) for name, value in pairs if name not in text}
    recorded = Values(
        network=text["network"].encode(),
        id_i=octets["id_i seed"],
        id_r=octets["id_r seed"],
        k_i=kem_public(octets["k_i seed"]),
        **{
            name: octets[name]
            for name in [
                "s_i",
                "s_r",
                "n1",
                "e_i",
                "hello",
                "n2",
                "e_r",
                "ct",
                "ss",
                "answer",
                "n3",
                "directory",
            ]
        },
    )
    wires = octets["message 1"], octets["message 2"], octets["message 3"]
    none = b"", b"", b""
    ends = octets["k_ir"], octets["k_ri"], octets["h"]
    return recorded, Run(wires, none, none, *ends)


def damaged(chance: random.Random, wire: bytes, others: Sequence[bytes]) -> bytes:
    """A message as somebody without any key can change or replace it."""
    at = chance.randrange(len(wire))
    other = chance.choice(others)
    flipped = bytearray(wire)
    for _ in range(chance.choice((1, 1, 2, 8))):
        flipped[chance.randrange(len(wire))] ^= 1 << chance.randrange(8)
    field = chance.choice((24, 32, 48, 4080, at))
    changed = chance.choice(
        (
            bytes(flipped),
            bytes(flipped),
            wire[:at],
            wire + other[: at + 1],
            wire[:field] + other[field:],  # fields of another message
            other[:field] + wire[field:],
            other,  # reflection, wrong role, another run
            bytes(4096),
            chance.randbytes(4096),
            wire[4096 - at :] + wire[: 4096 - at],
        )
    )
    return changed if changed != wire else bytes(flipped)


def resealed(
    chance: random.Random,
    number: int,
    true: Run,
    other: Run,
    fields: Sequence[int],
) -> bytes:
    """A message as somebody can change it who has its outer key, but no other.

    `fields` are the offsets at which the fields inside begin, and the end.
    """
    payload, stranger = true.payloads[number - 1], other.payloads[number - 1]
    at = chance.randrange(len(fields) - 1)
    start, end = fields[at], fields[at + 1]
    flipped = bytearray(payload)
    flipped[chance.randrange(start, end)] ^= 1 << chance.randrange(8)
    inside = bytes(flipped)
    changed = chance.choice(
        (
            inside,
            inside,
            payload[:start] + stranger[start:end] + payload[end:],
            payload[:start] + bytes(end - start) + payload[end:],
            payload[:start]
            + chance.choice(LOW_ORDER).ljust(end - start)[: end - start]
            + payload[end:],
            payload + bytes(chance.randrange(4056 - len(payload))) + b"\1",
            stranger,
        )
    )
    nonce = true.wires[number - 1][:24]
    if changed == payload:
        changed = inside
    return xs(true.outers[number - 1], nonce, b"%d" % number, changed)
