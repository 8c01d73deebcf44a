# SPDX-License-Identifier: MIT
"""ChaCha20-Poly1305 (RFC 8439) of what is large: OpenSSL's, where libsodium's is slow.

                    libsodium   OpenSSL, its key included
    1,008 octets       1.7 us       1.8     (a processor with AVX-512; with AVX2 half of
    4,080              6.1          2.6      the gain)
    12,272            17.4          4.8
    28,656            40.5          9.3

The boxes are the same, so either opens what the other sealed; crypto.py says from what
length on this one is asked.  OpenSSL copies a key into a context of its own, in memory
that is neither locked nor left out of dumps and children, and overwrites it when the
context is dropped.

Invariant: no context outlives the call that made it, however the call ends: not in the
frames that an exception keeps, either.  While it is there the plaintext lies in the same
memory, and after that the key is nowhere but in its slot of the slab.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any, Final

from mesh.core.memory import KEY_LEN, Key, Octets, ffi
from mesh.errors import CryptoError, LocalProtocolError, UnavailableError

TAG_LEN: Final = 16
"""Octets that a box has more than its plaintext."""
NOTHING_SEALED: Final = bytes.fromhex("4eb972c9a8fb3a1b382bb4d36f5ffad1")
"""The box of nothing, under a key and a nonce of zeros."""


@cache
def openssl() -> tuple[Any, type[Exception]]:
    """Give its cipher and its refusal: 5 ms, for who seals or opens something.

    A node asks for it when it is made: what it is replaced by later may not load, and mail
    is not to find out that it refuses.  UnavailableError: it does, or seals something else.
    """
    from cryptography.exceptions import InvalidTag, UnsupportedAlgorithm
    from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

    try:
        sealed = ChaCha20Poly1305(bytes(KEY_LEN)).encrypt(bytes(12), b"", None)
    except UnsupportedAlgorithm:
        sealed = b""
    if sealed != NOTHING_SEALED:
        raise UnavailableError(
            "OpenSSL refuses ChaCha20-Poly1305 (in FIPS mode?): start mesh with "
            "OPENSSL_CONF=/dev/null in its environment"
        )
    return ChaCha20Poly1305, InvalidTag


def _context(key: Key) -> Any:
    if key.length != KEY_LEN:
        raise LocalProtocolError("a cipher takes 32 octets of key")
    return openssl()[0](ffi.buffer(key.address, KEY_LEN))


def _place(octets: bytes) -> Any:
    """Give fresh `bytes` to be filled, while nobody else has them."""
    return ffi.buffer(ffi.from_buffer(octets))


def seal_bulk(key: Key, nonce: bytes, plaintext: Octets, ad: Octets) -> bytes:
    """Seal one: len(plaintext) + 16 octets."""
    box = bytes(len(plaintext) + TAG_LEN)
    _context(key).encrypt_into(nonce, plaintext, ad, _place(box))
    return box


def open_bulk_untrusted(key: Key, nonce: bytes, box: Octets, ad: Octets) -> bytes:
    """Open a box of more than 16 octets; CryptoError when it does not open."""
    plaintext = bytes(len(box) - TAG_LEN)
    try:
        _context(key).decrypt_into(nonce, box, ad, _place(plaintext))
    except openssl()[1] as error:
        raise CryptoError("a box does not open") from error
    return plaintext


def seal_each(
    key: Key,
    nonces: Sequence[bytes],
    plaintexts: Sequence[memoryview],
    boxes: Sequence[memoryview],
) -> None:
    """Seal each under its own nonce into its own place, which lies elsewhere."""
    seal = _context(key).encrypt_into
    try:
        for nonce, plaintext, box in zip(nonces, plaintexts, boxes, strict=True):
            seal(nonce, plaintext, None, box)
    finally:
        del seal  # an exception keeps this frame


def open_each_untrusted(
    key: Key,
    nonces: Sequence[bytes],
    boxes: Sequence[memoryview],
    plaintexts: Sequence[memoryview],
) -> int:
    """Open each into its own place, until one does not open; how many did.

    The place of the one that did not holds what nobody vouches for.
    """
    opened, unseal = 0, _context(key).decrypt_into
    try:
        for nonce, box, plaintext in zip(nonces, boxes, plaintexts, strict=True):
            unseal(nonce, box, None, plaintext)
            opened += 1
    except openssl()[1]:
        pass
    finally:
        del unseal  # an exception keeps this frame
    return opened
