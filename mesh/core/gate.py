# SPDX-License-Identifier: MIT
"""The responder's side of the handshake: who is let in, and who meets silence.

The messages are in handshake.py.  What R checks, in this order; whatever fails has
the same error, the same text and the same answer, which is none:

    M1   4,096 octets; the outer box opens under a link key of ours (<= 2, all tried)
         its filling is zeros; DH(e_I, S_R) is not zero; c1 opens
         S_I is a listed, unexpired peer's and not ours; c2 opens
         counter > last[S_I]; then last[S_I] = counter, in memory
         no other handshake of this peer is pending; fewer than 6 of its hellos in
         the last minute have brought no valid M3
         its terms are terms; k_I passes FIPS 203's key check
    M3   in time; the next 4,096 octets after M1; the outer box; filling; c4 opens
         sig_I is ID_I's; the peer is still listed

    a handshake of R    M1 good     -> pending      message_2 leaves
                        M3 good     -> a Session    not counted
                        M3 bad, abandon(), or out of time -> counted among the 6

The cost of a refusal: junk, one AEAD open for each link key; junk by a holder of our
descriptor, one X25519 more.  A link key that is not listed takes the same path as one
that is, with a secret that nobody knows in place of DH(S_I, S_R): c2 does not open.
So the time that a refusal takes does not say whose neighbour we are.  DH(S_I, S_R) is
kept for each listed key and is never computed for a stranger.

While our own link key changes, two are in force (`rekey`): a hello under either is
answered.  A peer's counters are kept for each of its link keys, and a new one starts
afresh; its other limits are the peer's, whichever key it uses.

Invariant: without DH(S_I, S_R) nobody gets an octet; without ID_I nobody a session.
Not prevented: whoever stole a peer's link key can keep that peer's own hellos out,
with the limits or with a counter far ahead, until the peer has changed its link key
and the old one is no longer listed.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from mesh.core.cellstream import CellOpener, CellSealer
from mesh.core.clock import Clock
from mesh.core.crypto import (
    PUBLIC_LEN,
    XNONCE_LEN,
    Entropy,
    Kem,
    Key,
    Octets,
    sign,
    signing_public,
    verify,
    x25519,
    x25519_public,
)
from mesh.core.handshake import (
    ANSWER,
    HELLO,
    MESSAGE_1,
    MESSAGE_2,
    MESSAGE_3,
    MESSAGE_SECONDS,
    PROOF,
    REFUSED,
    RESPONSE_SECONDS,
    PeerKeys,
    Session,
    Terms,
    begin,
    hello_key,
    terms_untrusted,
)
from mesh.core.symmetric import SymmetricState, open_outer_untrusted, seal_outer, wiping
from mesh.errors import (
    CryptoError,
    HandshakeError,
    LocalProtocolError,
    RemoteProtocolError,
)

STATICS_MAX: Final = 2
"""Link keys in force at once: the newest and, while descriptors spread, the last."""
UNPROVEN_PER_MINUTE: Final = 6
"""Hellos a peer may waste in a minute: an honest one that backs off makes about 6."""
UNPROVEN_SECONDS: Final = 60.0
PENDING_SECONDS: Final = RESPONSE_SECONDS[1] + MESSAGE_SECONDS
"""From M1 to M3 at the latest: our delay, then a message's time."""

_STRANGER: Final = PeerKeys("", bytes(PUBLIC_LEN), ())


class _Door(NamedTuple):
    """One link key of ours and what follows from it alone."""

    static: Key
    public: bytes
    hello: Key


class _Hello(NamedTuple):
    """A message 1 that opened in every part, from a listed peer."""

    peer: PeerKeys
    link_key: bytes
    ephemeral: bytes
    kem_public: bytes
    body: bytes


@dataclass
class _Record:
    """What we remember of a peer: its hellos without a valid M3, the one pending."""

    unproven: list[float] = field(default_factory=list)
    pending: "Responder | None" = None


class Gate:
    """All that a responder knows between connections; one for the whole node.

    `statics` and `identity` stay the caller's, and so does `counters` (the last
    counter of each link key), which is read and written here: load it with what is
    durable, save a Session's `counter` under its `peer_link_key`.
    """

    def __init__(
        self,
        *,
        network: str,
        identity: Key,
        statics: Sequence[Key],
        find_peer: Callable[[bytes], PeerKeys | None],
        counters: dict[bytes, int],
        clock: Clock,
        klass: int,
        kem: Kem,
        entropy: Entropy,
    ) -> None:
        """Take our keys, newest link key first, and the way to look up a peer's.

        `find_peer` gives the listed, unexpired peer that has this link key.
        """
        public = signing_public(identity)
        self.network = network
        self.identity = identity
        self.identity_public = public
        self.find_peer = find_peer
        self.terms = Terms(klass, clock)
        self.kem = kem
        self.entropy = entropy
        self._counters = counters
        self._doors: list[_Door] = []
        self._decoy = entropy.key()
        self._secrets: dict[tuple[bytes, bytes], Key] = {}
        self._records: dict[bytes, _Record] = {}
        self.rekey(statics)

    def rekey(self, statics: Sequence[Key]) -> None:
        """Answer under these link keys of ours from now on, newest first.

        What follows from one that is no longer among them is wiped; the caller wipes
        the key itself.  A handshake that it let in goes on.
        """
        if not 1 <= len(statics) <= STATICS_MAX:
            raise LocalProtocolError("a node has one link key, or two at a change")
        publics = [x25519_public(key) for key in statics]
        for door in self._doors:
            door.hello.wipe()
        for pair in [pair for pair in self._secrets if pair[1] not in publics]:
            self._secrets.pop(pair).wipe()
        self._doors = [
            _Door(key, public, hello_key(self.network, self.identity_public, public))
            for key, public in zip(statics, publics, strict=True)
        ]

    def receive_message_1_untrusted(self, wire: Octets, now: float) -> "Responder":
        """Check message 1 at `now` (seconds) and prepare message 2.

        HandshakeError: be silent.  The response_delay is drawn before this call.
        """
        state: SymmetricState | None = None
        try:
            door, nonce, payload = self._open_hello_untrusted(wire)
            state = begin(self.network, self.identity_public, door.public)
            state.mix_hash(nonce)
            hello = self._read_hello_untrusted(state, door, payload)
            return self._admit_untrusted(state, hello, now)
        except RemoteProtocolError:
            if state is not None:
                state.wipe()
            raise HandshakeError(REFUSED) from None

    def settle(self, responder: "Responder", *, proven: bool) -> None:
        """Free the pending place; a hello that was not proven stays counted."""
        record = self._records.get(responder.peer.identity)
        if record is not None and record.pending is responder:
            record.pending = None
            if proven:
                record.unproven.remove(responder.started)

    def forget(self, link_key: bytes) -> None:
        """Drop what was kept for a link key that is no listed peer's any more.

        Its counter stays: a peer that is removed and added again must not give its
        recorded hellos a second life.
        """
        for door in self._doors:
            secret = self._secrets.pop((link_key, door.public), None)
            if secret is not None:
                secret.wipe()

    def wipe(self) -> None:
        """Zero what is kept; the keys that were given stay the caller's."""
        self._decoy.wipe()
        for secret in self._secrets.values():
            secret.wipe()
        self._secrets.clear()
        for door in self._doors:
            door.hello.wipe()

    def _open_hello_untrusted(self, wire: Octets) -> tuple[_Door, bytes, bytes]:
        """Open the outer box; every link key is tried, whichever it is for."""
        found = None
        for door in self._doors:
            try:
                opened = open_outer_untrusted(
                    door.hello.copy(), wire, b"1", MESSAGE_1.size
                )
            except CryptoError:
                continue
            found = door, *opened
        if found is None:
            raise HandshakeError(REFUSED)
        return found

    def _read_hello_untrusted(
        self, state: SymmetricState, door: _Door, payload: bytes
    ) -> _Hello:
        ephemeral, kem_public, c1, c2 = MESSAGE_1.unpack(payload)
        state.mix_hash(ephemeral)
        state.mix_hash(kem_public)
        state.mix_key(x25519(door.static, ephemeral))
        link_key = state.decrypt_and_hash_untrusted(c1)
        peer = self.find_peer(link_key) or _STRANGER
        if peer.identity == self.identity_public:
            peer = _STRANGER  # we do not talk to ourselves, nor to our mirror
        state.mix_hash(peer.identity)
        state.mix_key(self._gate_secret_untrusted(peer, link_key, door))
        body = state.decrypt_and_hash_untrusted(c2)
        return _Hello(peer, link_key, ephemeral, kem_public, body)

    def _gate_secret_untrusted(
        self, peer: PeerKeys, link_key: bytes, door: _Door
    ) -> Key:
        """DH(S_I, S_R), kept for listed keys; what nobody knows for a stranger's."""
        if peer is _STRANGER:
            return self._decoy.copy()
        secret = self._secrets.get((link_key, door.public))
        if secret is None:
            secret = x25519(door.static, link_key)
            self._secrets[link_key, door.public] = secret
        return secret.copy()

    def _admit_untrusted(
        self, state: SymmetricState, hello: _Hello, now: float
    ) -> "Responder":
        counter, klass, clock, filling = HELLO.unpack(hello.body)
        if counter <= self._counters.get(hello.link_key, 0):
            raise HandshakeError(REFUSED)
        self._counters[hello.link_key] = counter
        record = self._records.setdefault(hello.peer.identity, _Record())
        record.unproven = [
            start for start in record.unproven if now - start < UNPROVEN_SECONDS
        ]
        waiting = record.pending
        if waiting is not None and now <= waiting.started + PENDING_SECONDS:
            raise HandshakeError(REFUSED)
        if len(record.unproven) >= UNPROVEN_PER_MINUTE:
            raise HandshakeError(REFUSED)
        record.unproven.append(now)
        terms = self.terms.joined(terms_untrusted(klass, clock, filling))
        responder = Responder(self, state, hello, counter, terms, now)
        record.pending = responder
        return responder


class Responder:
    """One handshake that passed message 1; made by a Gate only.

    Send `message_2`, then give the next 4,096 octets to receive_message_3_untrusted;
    or call `abandon` when the connection ends or MESSAGE_SECONDS pass before that.
    """

    def __init__(
        self,
        gate: Gate,
        state: SymmetricState,
        hello: _Hello,
        counter: int,
        terms: Terms,
        now: float,
    ) -> None:
        self.peer = hello.peer
        self.started = now
        self._gate = gate
        self._state = state
        self._link_key = hello.link_key
        self._counter = counter
        self._terms = terms
        self._ended = False
        self.message_2 = self._message_2_untrusted(hello)

    def receive_message_3_untrusted(self, wire: Octets, now: float) -> Session:
        """Check message 3 at `now`: the session, whose counter is to be made durable.

        HandshakeError: be silent.
        """
        if self._ended:
            raise LocalProtocolError("a handshake that has ended")
        try:
            version, digest = self._read_message_3_untrusted(wire, now)
        except RemoteProtocolError:
            self.abandon()
            raise HandshakeError(REFUSED) from None
        session = Session(
            peer=self.peer,
            sealer=CellSealer(self._state.derive(b"R->I")),
            opener=CellOpener(self._state.derive(b"I->R")),
            clock=self._terms.clock,
            klass=self._terms.klass,
            counter=self._counter,
            we_initiated=False,
            directory_version=version,
            directory_hash=digest,
            peer_link_key=self._link_key,
        )
        self._gate.settle(self, proven=True)
        self.wipe()
        return session

    def abandon(self) -> None:
        """End without a session; the hello counts as one that proved nothing."""
        self._gate.settle(self, proven=False)
        self.wipe()

    def wipe(self) -> None:
        """Zero what is ephemeral and end; again is no error."""
        self._ended = True
        self._state.wipe()

    def _message_2_untrusted(self, hello: _Hello) -> bytes:
        gate, outer = self._gate, self._state.derive(b"outer 2")
        ephemeral = gate.entropy.key()
        with wiping(outer, ephemeral):
            nonce = gate.entropy.octets(XNONCE_LEN)
            payload = self._answer_untrusted(hello, nonce, ephemeral)
            return seal_outer(outer, nonce, b"2", payload)

    def _answer_untrusted(self, hello: _Hello, nonce: bytes, ephemeral: Key) -> bytes:
        gate, state = self._gate, self._state
        public = x25519_public(ephemeral)
        state.mix_hash(nonce)
        state.mix_hash(public)
        state.mix_key(x25519(ephemeral, hello.ephemeral))
        secret, ciphertext = gate.kem.encapsulate(hello.kem_public)
        state.mix_hash(ciphertext)
        state.mix_key(secret)
        signature = sign(gate.identity, state.signed(b"responder"))
        terms = gate.terms
        c3 = state.encrypt_and_hash(
            ANSWER.pack(signature, terms.klass, terms.clock, b"")
        )
        return MESSAGE_2.pack(public, ciphertext, c3)

    def _read_message_3_untrusted(self, wire: Octets, now: float) -> tuple[int, bytes]:
        if now > self.started + PENDING_SECONDS:
            raise HandshakeError(REFUSED)
        state = self._state
        outer = state.derive(b"outer 3")
        nonce, payload = open_outer_untrusted(outer, wire, b"3", MESSAGE_3.size)
        state.mix_hash(nonce)
        signed = state.signed(b"initiator")
        proof = state.decrypt_and_hash_untrusted(*MESSAGE_3.unpack(payload))
        signature, version, digest = PROOF.unpack(proof)
        verify(self.peer.identity, signed, signature)
        listed = self._gate.find_peer(self._link_key)
        if listed is None or listed.identity != self.peer.identity:
            raise HandshakeError(REFUSED)
        return version, digest
