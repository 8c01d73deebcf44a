# SPDX-License-Identifier: MIT
"""One key and the count of what it sealed: Noise's CipherState (rev 34, 5.1).

    nonce    12 octets: the count of boxes before this one, big-endian, from 0
    box      ciphertext || tag 16: ChaCha20-Poly1305 over the plaintext and `ad`
    rekey    k = BLAKE2b-256(key=k, "mesh/1 rekey"), the count 0 again, old k wiped

Invariant: no nonce is used twice with a key.  The count grows with every box that
was sealed, or that opened, and REJECT_AFTER is an error, never a wrap.
A box that does not open leaves the count where it was; what then becomes of the
connection is decided above (cellstream.py, handshake.py: it ends).
"""

from collections.abc import Sequence
from typing import Final

from mesh.core import bulk
from mesh.core.crypto import (
    KEY_LEN,
    NONCE_LEN,
    NULL,
    Key,
    Octets,
    Place,
    chacha_open,
    chacha_seal,
    derive_key,
    open_untrusted,
    seal,
)
from mesh.errors import CryptoError, LocalProtocolError

REJECT_AFTER: Final = 1024
"""Boxes under one key.  A handshake seals 2 with one and a cell stream 64 before it
rekeys, so a count that comes here is a forgotten rekey: a bug, and it ends there."""
REKEY_LABEL: Final = b"mesh/1 rekey"
_FORGOTTEN: Final = "a key has sealed all it may: rekey was forgotten"
_NONCES: Final = tuple(at.to_bytes(NONCE_LEN, "big") for at in range(REJECT_AFTER))


class CipherState:
    """Seals, or opens, boxes in order under one key, which it owns and wipes."""

    __slots__ = ("_count", "_key")

    def __init__(self, key: Key) -> None:
        """Take a key of 32 octets over; the caller does not use it again."""
        if key.length != KEY_LEN:
            raise LocalProtocolError("a cipher takes 32 octets of key")
        self._key = key
        self._count = 0

    @property
    def count(self) -> int:
        """Boxes sealed, or opened, under the present key."""
        return self._count

    def encrypt_with_ad(self, ad: Octets, plaintext: Octets) -> bytes:
        """Seal the next box: len(plaintext) + 16 octets."""
        box = seal(self._key, self._nonce(), plaintext, ad)
        self._count += 1
        return box

    def decrypt_with_ad_untrusted(self, ad: Octets, box: Octets) -> bytes:
        """Open the next box; CryptoError, and no step onward, for anything else."""
        plaintext = open_untrusted(self._key, self._nonce(), box, ad)
        self._count += 1
        return plaintext

    def seal_over(self, place: Place, length: int) -> int:
        """Seal the next box where its plaintext lies, without `ad`; the count then.

        16 octets of room are behind it.  For whoever seals for ever: nothing is made or
        copied, no plaintext is left, and libsodium is called from here, since each
        call between costs a cell more than its share of the cipher.
        """
        count = self._count
        if count >= REJECT_AFTER:
            raise LocalProtocolError(_FORGOTTEN)
        slot = self._key.slot or self._key.address  # which raises: it was wiped
        chacha_seal(place, NULL, place, length, NULL, 0, NULL, _NONCES[count], slot)
        self._count = count = count + 1
        return count

    def open_into_untrusted(self, box: Place, length: int, place: Place) -> int:
        """Open the next box into a place, as the others do; the count then."""
        count = self._count
        if count >= REJECT_AFTER:
            raise LocalProtocolError(_FORGOTTEN)
        slot = self._key.slot or self._key.address
        if chacha_open(place, NULL, NULL, box, length, NULL, 0, _NONCES[count], slot):
            raise CryptoError("a box does not open")
        self._count = count = count + 1
        return count

    def seal_each(
        self, plaintexts: Sequence[memoryview], boxes: Sequence[memoryview]
    ) -> int:
        """Seal each plaintext into its box's place, without `ad`; the count then."""
        begin = self._count
        end = begin + len(plaintexts)
        if end > REJECT_AFTER:
            raise LocalProtocolError(_FORGOTTEN)
        self._count = end  # first: whatever stops this, no nonce comes again
        bulk.seal_each(self._key, _NONCES[begin:end], plaintexts, boxes)
        return end

    def open_each_untrusted(
        self, boxes: Sequence[memoryview], plaintexts: Sequence[memoryview]
    ) -> int:
        """Open the boxes until one does not open; the count then."""
        end = self._count + len(boxes)
        if end > REJECT_AFTER:
            raise LocalProtocolError(_FORGOTTEN)
        nonces = _NONCES[self._count : end]
        self._count += bulk.open_each_untrusted(self._key, nonces, boxes, plaintexts)
        return self._count

    def rekey(self) -> None:
        """Step to the next key, from which this one cannot be found again."""
        following = derive_key(self._key, REKEY_LABEL)
        self._key.wipe()
        self._key = following
        self._count = 0

    def surrender(self) -> Key:
        """Give a copy of the key and zero this one; only before its first box.

        Whoever goes on with it counts from 0, where a nonce would have been used.
        """
        if self._count:
            raise LocalProtocolError("a key that has sealed stays where it is")
        key = self._key.copy()
        self._key.wipe()
        return key

    def wipe(self) -> None:
        """Zero the key; using this object after that is our bug."""
        self._key.wipe()

    def _nonce(self) -> bytes:
        if self._count >= REJECT_AFTER:
            raise LocalProtocolError(_FORGOTTEN)
        return _NONCES[self._count]
