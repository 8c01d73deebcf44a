# SPDX-License-Identifier: MIT
"""Two nodes prove who they are, and nobody else learns that there is a node.

Signed Diffie-Hellman, X25519 and ML-KEM-768, by Noise's rules (symmetric.py), in
three messages of exactly 4,096 octets.  A node has an identity key ID (Ed25519) and
a link key S (X25519, changed at most monthly, at most two in force), which stands in
its descriptor and nowhere else.  I is the initiator, R the responder; numbers are
big-endian; an all-zero DH result refuses; N is 24 random octets.

    INIT  h = ck = H(suite); MixHash(network); MixHash(ID_R S_R)
          hk = BLAKE2b-256("mesh/1 hello" 00 H(network) ID_R S_R)
    M1    MixHash(N1) MixHash(e_I) MixHash(k_I)
          MixKey(DH(e_I, S_R));  c1 = EncryptAndHash(S_I)
          MixHash(ID_I); MixKey(DH(S_I, S_R))
          c2 = EncryptAndHash(counter u64, class u8, clock u8, 0[6])
          wire = XS(hk, N1, "1", e_I[32] k_I[1184] c1[48] c2[32])
    M2    o2 = K("outer 2")
          MixHash(N2) MixHash(e_R); MixKey(DH(e_I, e_R))
          ss, ct = Encaps(k_I); MixHash(ct); MixKey(ss)
          sig_R = Sign(ID_R, signed("responder"))
          c3 = EncryptAndHash(sig_R[64], class u8, clock u8, 0[14])
          wire = XS(o2, N2, "2", e_R[32] ct[1088] c3[96])
    M3    o3 = K("outer 3")
          MixHash(N3); sig_I = Sign(ID_I, signed("initiator"))
          c4 = EncryptAndHash(sig_I[64], directory version u64, hash[32])
          wire = XS(o3, N3, "3", c4[120])
    SPLIT k_IR = K("I->R"), k_RI = K("R->I"); class = the lower, clock = the stricter

What each side checks, and what R remembers between handshakes: `Initiator` below,
gate.py.  A message leaves `response_delay` after the one that it answers has come,
drawn before any work on that, so that it tells nothing of the work.

Invariants: one error with one text for every refusal, and the answer is silence: keep
reading, a `look_pause` between two looks, send nothing, close after `silence_duration`.  Only signatures prove who
somebody is: DH(S_I, S_R) is a gate that spares strangers an answer, no proof.  Both
signatures cover both identities, all ephemerals, k_I, ct, S_I and the role.  All that
is ephemeral is wiped when a handshake ends, well or not.
What is not here: sockets, deadlines, retries (election.py says who dials and when).
"""

import enum
import struct
from dataclasses import dataclass, field
from typing import Final

from mesh.core.cellstream import CellOpener, CellSealer
from mesh.core.chance import uniform
from mesh.core.clock import CLASS_MAX, Clock
from mesh.core.crypto import (
    XNONCE_LEN,
    Entropy,
    Kem,
    KemPrivate,
    Key,
    Octets,
    hash256,
    hash512,
    sign,
    signing_public,
    verify,
    x25519,
    x25519_public,
)
from mesh.core.symmetric import SymmetricState, open_outer_untrusted, seal_outer
from mesh.errors import HandshakeError, LocalProtocolError, RemoteProtocolError

MESSAGE_1: Final = struct.Struct(">32s1184s48s32s")
HELLO: Final = struct.Struct(">QBB6s")
MESSAGE_2: Final = struct.Struct(">32s1088s96s")
ANSWER: Final = struct.Struct(">64sBB14s")
MESSAGE_3: Final = struct.Struct(">120s")
PROOF: Final = struct.Struct(">64sQ32s")

MESSAGE_SECONDS: Final = 15.0
"""For a whole message to come: 4,096 octets over the worst line, and some losses."""
RESPONSE_SECONDS: Final = (0.1, 1.1)
"""From a message's last octet to the answer: the lower bound hides the work, which
takes a hundredth of it, the width hides what a busy machine adds."""
SILENCE_SECONDS: Final = (60.0, 180.0)
"""From accept or connect to our close, when the other side does not close first."""
LOOK_SECONDS: Final = (0.1, 0.5)
"""Between two looks at a connection that has proven nothing: a hundred times what a
busy machine makes a look late, and little beside RESPONSE_SECONDS."""
COUNTER_MAX: Final = 2**64 - 1
NO_DIRECTORY: Final = (0, bytes(32))
REFUSED: Final = "the handshake does not hold"
"""The text of every refusal: a cause, told or logged, would be an oracle."""


@dataclass(frozen=True)
class PeerKeys:
    """What a handshake needs of a peer's descriptor; link keys newest first."""

    name: str
    identity: bytes
    link_keys: tuple[bytes, ...] = field(repr=False)  # printed nowhere


@dataclass(frozen=True)
class Terms:
    """What a side offers: the link runs at the lower class by the stricter clock."""

    klass: int
    clock: Clock

    def joined(self, other: "Terms") -> "Terms":
        """Both sides' terms, the same whoever asks."""
        return Terms(min(self.klass, other.klass), min(self.clock, other.clock))


@dataclass
class Session:
    """A finished handshake: what the link needs, with keys that are its own now.

    `counter` is the initiator's; a responder makes it durable as the last of this
    peer's link key.  The directory's head is the initiator's, as the responder knows
    it from message 3; for an initiator it is empty (R's comes in a cell).
    """

    peer: PeerKeys
    sealer: CellSealer = field(repr=False)
    opener: CellOpener = field(repr=False)
    clock: Clock
    klass: int
    counter: int
    we_initiated: bool
    directory_version: int
    directory_hash: bytes
    peer_link_key: bytes = field(repr=False)

    def wipe(self) -> None:
        """Zero both keys."""
        self.sealer.wipe()
        self.opener.wipe()


class Phase(enum.Enum):
    """Where an initiator is; every failure leads to ENDED."""

    FRESH = "message 1 not made"
    ASKED = "message 1 made, message 2 awaited"
    PROVED = "message 3 made, session not taken"
    ENDED = "session taken, refused or wiped"


def begin(network: str, identity: bytes, link_key: bytes) -> SymmetricState:
    """INIT: the transcript that a hello to this responder continues."""
    state = SymmetricState()
    state.mix_hash(network.encode())
    state.mix_hash(identity, link_key)
    return state


def hello_key(network: str, identity: bytes, link_key: bytes) -> Key:
    """Compute hk, which opens a hello's outer box: whoever has the descriptor has it."""
    named = hash512(network.encode())
    return Key.from_bytes(hash256(b"mesh/1 hello\0", named, identity, link_key))


def terms_untrusted(klass: int, clock: int, filling: bytes) -> Terms:
    """Check the terms of the other side; HandshakeError when they are none."""
    if klass > CLASS_MAX or clock > max(Clock) or any(filling):
        raise HandshakeError(REFUSED)
    return Terms(klass, Clock(clock))


def response_delay(entropy: Entropy) -> float:
    """Seconds from a message's last octet to ours; draw it before any work."""
    return uniform(entropy, *RESPONSE_SECONDS)


def silence_duration(entropy: Entropy) -> float:
    """Seconds from accept or connect until a refused connection is closed."""
    return uniform(entropy, *SILENCE_SECONDS)


def look_pause(entropy: Entropy) -> float:
    """Seconds from one look at an unproven connection to the next.

    The mean of two draws: no edge against which a look that is late would show.
    """
    return (uniform(entropy, *LOOK_SECONDS) + uniform(entropy, *LOOK_SECONDS)) / 2


def next_counter(last: int, unix_ns: int) -> int:
    """Give the counter of the next message 1: it grows, whatever the clock does.

    `last` is the greatest that was ever used, or durably reserved ahead of use.
    """
    counter = max(last + 1, unix_ns)
    if counter > COUNTER_MAX:
        raise LocalProtocolError("the handshake counter is used up")
    return counter


class Initiator:
    """One dial: message_1, receive_message_2_untrusted, session, in this order.

    `identity` (64 octets) and `static` (32) stay the caller's; everything else
    secret is made here and wiped here.  Each object serves one connection.
    """

    def __init__(
        self,
        *,
        network: str,
        identity: Key,
        static: Key,
        peer: PeerKeys,
        counter: int,
        clock: Clock,
        klass: int,
        kem: Kem,
        entropy: Entropy,
        directory: tuple[int, bytes] = NO_DIRECTORY,
    ) -> None:
        """Prepare to dial `peer` at its newest link key."""
        self._identity = identity
        self._static = static
        self._peer = peer
        self._counter = counter
        self._terms = Terms(klass, clock)
        self._kem = kem
        self._entropy = entropy
        self._directory = directory
        self._network = network
        self._state = begin(network, peer.identity, peer.link_keys[0])
        self._ephemeral: Key | None = None
        self._kem_private: KemPrivate | None = None
        self._phase = Phase.FRESH

    def message_1(self) -> bytes:
        """Make message 1; HandshakeError when the peer's link key is no valid one."""
        self._step(Phase.FRESH, Phase.ASKED)
        try:
            return self._message_1()
        except RemoteProtocolError:
            self.wipe()
            raise HandshakeError(REFUSED) from None

    def receive_message_2_untrusted(self, wire: Octets) -> bytes:
        """Check message 2 and make message 3, which leaves after a response_delay.

        HandshakeError: send nothing more, be silent, back off.
        """
        self._step(Phase.ASKED, Phase.PROVED)
        try:
            self._read_message_2_untrusted(wire)
        except RemoteProtocolError:
            self.wipe()
            raise HandshakeError(REFUSED) from None
        return self._message_3()

    def session(self) -> Session:
        """Take the keys of the link, once; what was ephemeral is wiped."""
        self._step(Phase.PROVED, Phase.ENDED)
        session = Session(
            peer=self._peer,
            sealer=CellSealer(self._state.derive(b"I->R")),
            opener=CellOpener(self._state.derive(b"R->I")),
            clock=self._terms.clock,
            klass=self._terms.klass,
            counter=self._counter,
            we_initiated=True,
            directory_version=NO_DIRECTORY[0],
            directory_hash=NO_DIRECTORY[1],
            peer_link_key=self._peer.link_keys[0],
        )
        self.wipe()
        return session

    def wipe(self) -> None:
        """Zero what is ephemeral and end; again is no error."""
        self._phase = Phase.ENDED
        self._state.wipe()
        self._kem_private = None
        if self._ephemeral is not None:
            self._ephemeral.wipe()

    def _step(self, now_in: Phase, to: Phase) -> None:
        if self._phase is not now_in:
            raise LocalProtocolError(f"an initiator in state: {self._phase.value}")
        self._phase = to

    def _message_1(self) -> bytes:
        state, link_key = self._state, self._peer.link_keys[0]
        nonce = self._entropy.octets(XNONCE_LEN)
        self._ephemeral = ephemeral = self._entropy.key()
        ephemeral_public = x25519_public(ephemeral)
        self._kem_private, kem_public = self._kem.keypair()
        for part in (nonce, ephemeral_public, kem_public):
            state.mix_hash(part)
        state.mix_key(x25519(ephemeral, link_key))
        c1 = state.encrypt_and_hash(x25519_public(self._static))
        state.mix_hash(signing_public(self._identity))
        state.mix_key(x25519(self._static, link_key))
        terms = self._terms
        c2 = state.encrypt_and_hash(
            HELLO.pack(self._counter, terms.klass, terms.clock, b"")
        )
        return seal_outer(
            hello_key(self._network, self._peer.identity, link_key),
            nonce,
            b"1",
            MESSAGE_1.pack(ephemeral_public, kem_public, c1, c2),
        )

    def _read_message_2_untrusted(self, wire: Octets) -> None:
        ephemeral, kem_private, state = self._ephemeral, self._kem_private, self._state
        if ephemeral is None or kem_private is None:
            raise AssertionError("message 1 made both")
        outer = state.derive(b"outer 2")
        nonce, payload = open_outer_untrusted(outer, wire, b"2", MESSAGE_2.size)
        their_public, ciphertext, c3 = MESSAGE_2.unpack(payload)
        state.mix_hash(nonce)
        state.mix_hash(their_public)
        state.mix_key(x25519(ephemeral, their_public))
        ephemeral.wipe()
        state.mix_hash(ciphertext)
        # A forged ciphertext gives another secret, silently: c3 then does not open.
        state.mix_key(kem_private.decapsulate(ciphertext))
        self._kem_private = None
        signed = state.signed(b"responder")
        answer = state.decrypt_and_hash_untrusted(c3)
        signature, klass, clock, filling = ANSWER.unpack(answer)
        verify(self._peer.identity, signed, signature)
        self._terms = self._terms.joined(terms_untrusted(klass, clock, filling))

    def _message_3(self) -> bytes:
        state, outer = self._state, self._state.derive(b"outer 3")
        nonce = self._entropy.octets(XNONCE_LEN)
        state.mix_hash(nonce)
        signature = sign(self._identity, state.signed(b"initiator"))
        c4 = state.encrypt_and_hash(PROOF.pack(signature, *self._directory))
        return seal_outer(outer, nonce, b"3", MESSAGE_3.pack(c4))
