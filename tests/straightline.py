# SPDX-License-Identifier: MIT
"""The handshake a second time, in a straight line, from the table of handshake.py.

Nothing of `mesh` is used here: hashlib, hmac and `cryptography` only, and HChaCha20
written out.  All private values are given, so this side can play either role, with
any value it likes: a test damages one `Values` and seals what follows correctly.
"""

import hashlib
import hmac
import struct
from dataclasses import dataclass, replace

from cryptography.hazmat.primitives.asymmetric import ed25519, mlkem, x25519
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat


def blake512(data: bytes) -> bytes:
    return hashlib.blake2b(data).digest()


def blake256(data: bytes, key: bytes = b"") -> bytes:
    return hashlib.blake2b(data, key=key, digest_size=32).digest()


def hkdf(chaining: bytes, secret: bytes) -> tuple[bytes, bytes]:
    temp = hmac.digest(chaining, secret, "blake2b")
    first = hmac.digest(temp, b"\1", "blake2b")
    second = hmac.digest(temp, first + b"\2", "blake2b")
    return first, second[:32]


def dh_public(private: bytes) -> bytes:
    key = x25519.X25519PrivateKey.from_private_bytes(private).public_key()
    return key.public_bytes(Encoding.Raw, PublicFormat.Raw)


def dh(private: bytes, public: bytes) -> bytes:
    """X25519, with the zeros that an attacker would go on with at a low order."""
    key = x25519.X25519PrivateKey.from_private_bytes(private)
    try:
        return key.exchange(x25519.X25519PublicKey.from_public_bytes(public))
    except ValueError:
        return bytes(32)


def id_public(seed: bytes) -> bytes:
    key = ed25519.Ed25519PrivateKey.from_private_bytes(seed).public_key()
    return key.public_bytes(Encoding.Raw, PublicFormat.Raw)


def id_sign(seed: bytes, message: bytes) -> bytes:
    return ed25519.Ed25519PrivateKey.from_private_bytes(seed).sign(message)


def kem_private(seed: bytes) -> mlkem.MLKEM768PrivateKey:
    return mlkem.MLKEM768PrivateKey.from_seed_bytes(seed)


def kem_public(seed: bytes) -> bytes:
    return kem_private(seed).public_key().public_bytes_raw()


def hchacha20(key: bytes, nonce: bytes) -> bytes:
    """draft-irtf-cfrg-xchacha-03, section 2.2."""
    s = list(struct.unpack("<16I", b"expand 32-byte k" + key + nonce))

    def quarter(a: int, b: int, c: int, d: int) -> None:
        for x, y, z, turn in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
            s[x] = (s[x] + s[y]) & 0xFFFFFFFF
            mixed = s[z] ^ s[x]
            s[z] = (mixed << turn | mixed >> 32 - turn) & 0xFFFFFFFF

    for _ in range(10):
        for column in range(4):
            quarter(column, 4 + column, 8 + column, 12 + column)
        for at in range(4):
            quarter(at, 4 + (at + 1) % 4, 8 + (at + 2) % 4, 12 + (at + 3) % 4)
    return struct.pack("<8I", *s[:4], *s[12:])


def xs(key: bytes, nonce: bytes, number: bytes, payload: bytes) -> bytes:
    """XS: the outer box; a payload that is longer keeps what it has."""
    inner = ChaCha20Poly1305(hchacha20(key, nonce[:16]))
    filled = payload.ljust(4056, b"\0")
    return nonce + inner.encrypt(bytes(4) + nonce[16:], filled, number)


class Transcript:
    """h, ck, k, n."""

    def __init__(self) -> None:
        self.h = blake512(b"mesh/1 X25519 MLKEM768 Ed25519 ChaChaPoly BLAKE2b")
        self.ck = self.h
        self.k = b""
        self.n = 0

    def mix_hash(self, data: bytes) -> None:
        self.h = blake512(self.h + data)

    def mix_key(self, secret: bytes) -> None:
        self.ck, self.k = hkdf(self.ck, secret)
        self.n = 0

    def encrypt(self, plaintext: bytes) -> bytes:
        nonce = self.n.to_bytes(12, "big")
        box = ChaCha20Poly1305(self.k).encrypt(nonce, plaintext, self.h)
        self.n += 1
        self.mix_hash(box)
        return box

    def signed(self, label: bytes) -> bytes:
        return b"mesh/1 " + label + b"\0" + self.h

    def key(self, label: bytes) -> bytes:
        return blake256(self.signed(label), key=self.ck)


@dataclass(frozen=True)
class Values:
    """Every value of a run; privates are seeds or scalars of 32 octets."""

    network: bytes
    id_i: bytes
    s_i: bytes
    id_r: bytes
    s_r: bytes
    n1: bytes
    e_i: bytes
    k_i: bytes
    hello: bytes
    n2: bytes
    e_r: bytes
    ct: bytes
    ss: bytes
    answer: bytes  # class, clock, filling
    n3: bytes
    directory: bytes  # version, hash
    # What is only different when a test lies:
    sent_e_i: bytes = b""
    sent_s_i: bytes = b""
    claimed_i: bytes = b""
    gate_secret: bytes = b""
    sent_e_r: bytes = b""
    signer_i: bytes = b""
    signer_r: bytes = b""
    label_i: bytes = b"initiator"
    label_r: bytes = b"responder"
    filling: bytes = b""

    def but(self, **changes: bytes) -> "Values":
        return replace(self, **changes)


@dataclass(frozen=True)
class Run:
    """The three messages, what lies in their outer boxes, and the two keys."""

    wires: tuple[bytes, bytes, bytes]
    payloads: tuple[bytes, bytes, bytes]
    outers: tuple[bytes, bytes, bytes]
    k_ir: bytes
    k_ri: bytes
    h: bytes


def run(v: Values) -> Run:
    """INIT, M1, M2, M3, SPLIT."""
    identity_r, link_r = id_public(v.id_r), dh_public(v.s_r)
    t = Transcript()
    t.mix_hash(v.network)
    t.mix_hash(identity_r + link_r)
    hk = blake256(b"mesh/1 hello\0" + blake512(v.network) + identity_r + link_r)

    e_i = v.sent_e_i or dh_public(v.e_i)
    t.mix_hash(v.n1)
    t.mix_hash(e_i)
    t.mix_hash(v.k_i)
    t.mix_key(bytes(32) if v.sent_e_i else dh(v.e_i, link_r))
    c1 = t.encrypt(v.sent_s_i or dh_public(v.s_i))
    t.mix_hash(v.claimed_i or id_public(v.id_i))
    t.mix_key(v.gate_secret or dh(v.s_i, link_r))
    c2 = t.encrypt(v.hello)
    p1 = e_i + v.k_i + c1 + c2 + v.filling

    o2 = t.key(b"outer 2")
    e_r = v.sent_e_r or dh_public(v.e_r)
    t.mix_hash(v.n2)
    t.mix_hash(e_r)
    t.mix_key(bytes(32) if v.sent_e_r else dh(v.e_r, e_i))
    t.mix_hash(v.ct)
    t.mix_key(v.ss)
    signature = id_sign(v.signer_r or v.id_r, t.signed(v.label_r))
    c3 = t.encrypt(signature + v.answer)
    p2 = e_r + v.ct + c3 + v.filling

    o3 = t.key(b"outer 3")
    t.mix_hash(v.n3)
    signature = id_sign(v.signer_i or v.id_i, t.signed(v.label_i))
    c4 = t.encrypt(signature + v.directory)
    p3 = c4 + v.filling

    wires = xs(hk, v.n1, b"1", p1), xs(o2, v.n2, b"2", p2), xs(o3, v.n3, b"3", p3)
    k_ir, k_ri = t.key(b"I->R"), t.key(b"R->I")
    return Run(wires, (p1, p2, p3), (hk, o2, o3), k_ir, k_ri, t.h)
