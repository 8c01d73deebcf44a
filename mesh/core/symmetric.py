# SPDX-License-Identifier: MIT
"""What both sides of a handshake know so far: Noise's SymmetricState (rev 34, 5.2).

    h      64 octets, public: the hash of all that was said
    ck     64 octets, secret: what both sides share because of it
    k, n   the cipher of the last MixKey (cipherstate.py)

    start            h = ck = H(label)                                H: BLAKE2b-512
    MixHash(data)    h = H(h data)
    MixKey(secret)   ck, k = HKDF(ck, secret); n = 0                  k: 32 octets
    EncryptAndHash   c = seal(k, n, plaintext, ad=h); MixHash(c)
    K(label)         BLAKE2b-256(key=ck, "mesh/1 " label 00 h)
    signed(label)    "mesh/1 " label 00 h                             what Ed25519 signs

and the outer box of a message, which makes it equal to random octets of one length:

    XS(k, N, ad, P) = N[24] || XChaCha20-Poly1305(k, N, ad, P || zeros to 4,056)

Invariant: every secret that goes in is wiped here, and `wipe` leaves none behind.
Nothing is ever sent in clear: without a MixKey there is no EncryptAndHash.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from mesh.core.cell import CELL_LEN
from mesh.core.cipherstate import CipherState
from mesh.core.crypto import (
    TAG_LEN,
    XNONCE_LEN,
    Key,
    Octets,
    derive_key,
    hash512,
    hkdf,
    xopen_untrusted,
    xseal,
)
from mesh.errors import CryptoError, LocalProtocolError

SUITE: Final = b"mesh/1 X25519 MLKEM768 Ed25519 ChaChaPoly BLAKE2b"
"""The one cipher suite; another would be another protocol, not an option of this."""
MESSAGE_LEN: Final = CELL_LEN
"""Octets of each handshake message: nobody can tell one from a cell."""
FILLED_LEN: Final = MESSAGE_LEN - XNONCE_LEN - TAG_LEN


class SymmetricState:
    """A transcript in progress; owns its chaining key and its cipher."""

    __slots__ = ("_chaining", "_cipher", "_hash")

    def __init__(self, suite: bytes = SUITE) -> None:
        """Start a transcript with h = ck = H(suite)."""
        self._hash = hash512(suite)
        self._chaining = Key.from_bytes(self._hash)
        self._cipher: CipherState | None = None

    @property
    def hash(self) -> bytes:
        """The transcript hash h."""
        return self._hash

    def mix_hash(self, *parts: Octets) -> None:
        """Add octets, laid end to end, to the transcript."""
        self._hash = hash512(self._hash, *parts)

    def mix_key(self, secret: Key) -> None:
        """Add a secret of 32 octets to the chaining key, and wipe it."""
        following, key = hkdf(self._chaining, secret)
        secret.wipe()
        self._chaining.wipe()
        self._chaining = following
        self._wipe_cipher()
        self._cipher = CipherState(key)

    def encrypt_and_hash(self, plaintext: Octets) -> bytes:
        """Seal under the key so far, bound to all that was said so far."""
        box = self._keyed().encrypt_with_ad(self._hash, plaintext)
        self.mix_hash(box)
        return box

    def decrypt_and_hash_untrusted(self, box: Octets) -> bytes:
        """Open what the other side sealed at this point; CryptoError otherwise."""
        plaintext = self._keyed().decrypt_with_ad_untrusted(self._hash, box)
        self.mix_hash(box)
        return plaintext

    def derive(self, label: bytes) -> Key:
        """K(label): a key that depends on all secrets and all that was said.

        ML-KEM alone does not bind ciphertext and public key to its secret; h does.
        """
        return derive_key(self._chaining, self.signed(label))

    def signed(self, label: bytes) -> bytes:
        """What a role signs at this point of the transcript."""
        return b"mesh/1 " + label + b"\0" + self._hash

    def wipe(self) -> None:
        """Zero every secret; again is no error."""
        self._chaining.wipe()
        self._wipe_cipher()

    def _wipe_cipher(self) -> None:
        if self._cipher is not None:
            self._cipher.wipe()

    def _keyed(self) -> CipherState:
        if self._cipher is None:
            raise LocalProtocolError("nothing is sent before a MixKey")
        return self._cipher


@contextmanager
def wiping(*keys: Key) -> Iterator[None]:
    """Zero these keys at the end of a block, however it ends."""
    try:
        yield
    finally:
        for key in keys:
            key.wipe()


def seal_outer(key: Key, nonce: bytes, number: bytes, payload: bytes) -> bytes:
    """XS: a handshake message of exactly 4,096 octets; wipes the key."""
    if len(payload) > FILLED_LEN:
        raise LocalProtocolError("a handshake message does not fit")
    with wiping(key):
        return nonce + xseal(key, nonce, payload.ljust(FILLED_LEN, b"\0"), number)


def open_outer_untrusted(
    key: Key, wire: Octets, number: bytes, length: int
) -> tuple[bytes, bytes]:
    """Open XS: the nonce and the first `length` octets; wipes the key.

    CryptoError for anything else, also for a filling that is not zeros.
    """
    with wiping(key):
        if len(wire) != MESSAGE_LEN:
            raise CryptoError("a handshake message has 4,096 octets")
        nonce = bytes(wire[:XNONCE_LEN])
        filled = xopen_untrusted(key, nonce, wire[XNONCE_LEN:], number)
    if filled.count(0, length) != FILLED_LEN - length:
        raise CryptoError("a handshake message has something in its filling")
    return nonce, filled[:length]
