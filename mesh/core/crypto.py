# SPDX-License-Identifier: MIT
"""The one door to what computes with secrets: libsodium and ML-KEM.

    primitive                     from                          reference
    BLAKE2b-256 / -512, keyed     libsodium, hashlib            RFC 7693
    HKDF over HMAC-BLAKE2b-512    this file                     Noise rev 34, 4.3
    X25519                        libsodium                     RFC 7748
    Ed25519                       libsodium                     RFC 8032
    ChaCha20-Poly1305             libsodium; bulk.py            RFC 8439
    XChaCha20-Poly1305            libsodium                     draft-irtf-cfrg-xchacha-03
    ML-KEM-768                    cryptography, imported late   FIPS 203

A secret is a `Key` in locked memory (memory.py).  The two places where a library
insists on `bytes` (a key file, ML-KEM) overwrite what they got.

Invariant: every AEAD, hash and DH takes its key by address, from the slab.  One library
copies it, for the time of a call: bulk.py says how that ends.
The calls release the interpreter's lock, so a thread may seal while another runs;
`hkdf` alone uses one shared scratch and belongs to the thread of the handshakes.
Nothing here draws randomness but `SystemEntropy`, which the shell hands inwards.
"""

from _blake2 import blake2b  # hashlib's own, without loading OpenSSL: 4 ms of 60
from collections.abc import Callable
from typing import Any, Final, Protocol

from mesh.core.bulk import TAG_LEN as TAG_LEN
from mesh.core.bulk import open_bulk_untrusted, seal_bulk
from mesh.core.memory import KEY_LEN as KEY_LEN
from mesh.core.memory import LONG_KEY_LEN as LONG_KEY_LEN
from mesh.core.memory import (
    SLOT_LEN,
    ffi,
    lib,
)
from mesh.core.memory import Key as Key
from mesh.core.memory import Octets as Octets
from mesh.core.memory import Place as Place
from mesh.core.memory import address_of as address_of
from mesh.core.memory import new_locked as new_locked
from mesh.core.memory import wipe_buffer as wipe_buffer
from mesh.errors import CryptoError, LocalProtocolError

PUBLIC_LEN: Final = 32
SIGNATURE_LEN: Final = 64
NONCE_LEN: Final = 12
XNONCE_LEN: Final = 24
KEM_PUBLIC_LEN: Final = 1184
KEM_CIPHERTEXT_LEN: Final = 1088
HASH_BLOCK_LEN: Final = 128
"""Octets of a BLAKE2b block, which HMAC pads its key to."""
SCRATCH_LEN: Final = 4096
BULK_LEN: Final = 2048
"""Octets of what goes in, plaintext or box, from which on OpenSSL seals and opens it
(bulk.py): below, a key costs it more than it gains; and then neither holds the
interpreter's lock."""

_new_raw: Final[Any] = ffi.new_allocator(should_clear_after_alloc=False)
NULL: Final[Any] = ffi.NULL
_from_buffer: Final[Any] = ffi.from_buffer
_ZEROS: Final = bytes(SLOT_LEN)
_scratch: Final[Any] = new_locked(SCRATCH_LEN)
memmove: Final[Callable[[Place, Place | Octets, int], None]] = ffi.memmove
"""memmove(3): to, from, length."""


class Entropy(Protocol):
    """Where randomness comes from: the system's in a node, a seed's in a test."""

    def octets(self, length: int) -> bytes:
        """Random octets that need no secrecy: nonces, ids, delays."""

    def key(self) -> Key:
        """A random key of 32 octets, made in locked memory."""


class SystemEntropy:
    """The system's generator (getrandom(2)) through libsodium."""

    def octets(self, length: int) -> bytes:
        """Random octets that need no secrecy: nonces, ids, delays."""
        out = _new_raw("unsigned char[]", max(length, 1))
        lib.randombytes(out, length)
        return bytes(ffi.buffer(out, length))

    def key(self) -> Key:
        """Make a random key of 32 octets."""
        key = Key(KEY_LEN)
        lib.randombytes(key.address, KEY_LEN)
        return key


def _pointer(data: Octets) -> Any:
    """Bytes go to C as they are; anything else by its buffer, uncopied."""
    return data if type(data) is bytes else ffi.from_buffer("unsigned char[]", data)


def same(left: Octets, right: Octets) -> bool:
    """Compare public lengths at once and contents in constant time."""
    return len(left) == len(right) and (
        lib.sodium_memcmp(_pointer(left), _pointer(right), len(left)) == 0
    )


# Hashes (RFC 7693) and key derivation


def hash512(*parts: Octets) -> bytes:
    """BLAKE2b-512 of the parts laid end to end: 64 octets."""
    state = blake2b()
    for part in parts:
        state.update(part)
    return state.digest()


def hash256(*parts: Octets) -> bytes:
    """BLAKE2b-256 of the parts laid end to end: 32 octets."""
    state = blake2b(digest_size=32)
    for part in parts:
        state.update(part)
    return state.digest()


def keyed_hash(key: Key, data: Octets, length: int = 32) -> bytes:
    """BLAKE2b under a secret key, for an output that is public: a name, a mark."""
    out = _new_raw("unsigned char[]", length)
    _keyed_hash_into(out, length, key, data)
    return bytes(ffi.buffer(out, length))


def derive_key(key: Key, data: Octets, length: int = KEY_LEN) -> Key:
    """BLAKE2b under a secret key, for an output that is a key itself."""
    derived = Key(length)
    _keyed_hash_into(derived.address, length, key, data)
    return derived


def _keyed_hash_into(out: Any, length: int, key: Key, data: Octets) -> None:
    if lib.crypto_generichash_blake2b_salt_personal(
        out,
        length,
        _pointer(data),
        len(data),
        key.address,
        key.length,
        ffi.NULL,
        ffi.NULL,
    ):
        raise LocalProtocolError("BLAKE2b refuses these lengths")


def hkdf(chaining_key: Key, input_key: Key) -> tuple[Key, Key]:
    """Noise's HKDF with two outputs, HMAC-BLAKE2b-512 (Noise rev 34, 4.3).

    Returns the next chaining key (64 octets) and a cipher key (32: the second
    output's head, as Noise says where HASHLEN is 64).
    """
    temp, first, second = Key(LONG_KEY_LEN), Key(LONG_KEY_LEN), Key(LONG_KEY_LEN)
    message = _scratch + 1024
    try:
        ffi.memmove(message, input_key.address, input_key.length)
        _hmac512(temp, chaining_key, message, input_key.length)
        message[0] = 1
        _hmac512(first, temp, message, 1)
        ffi.memmove(message, first.address, LONG_KEY_LEN)
        message[LONG_KEY_LEN] = 2
        _hmac512(second, temp, message, LONG_KEY_LEN + 1)
        cipher = Key(KEY_LEN)
        ffi.memmove(cipher.address, second.address, KEY_LEN)
    finally:
        lib.sodium_memzero(_scratch, SCRATCH_LEN)
        temp.wipe()
        second.wipe()
    return first, cipher


def _hmac512(out: Key, key: Key, message: Any, length: int) -> None:
    """HMAC (RFC 2104) over BLAKE2b-512; `message` lies in the locked scratch."""
    pads, inner = _scratch, _scratch + 2048
    words = ffi.cast("uint64_t *", key.address)
    for pad, place in ((0x36, inner), (0x5C, pads)):
        ffi.memmove(place, bytes([pad]) * HASH_BLOCK_LEN, HASH_BLOCK_LEN)
        target = ffi.cast("uint64_t *", place)
        for index in range(key.length // 8):
            target[index] ^= words[index]
    ffi.memmove(inner + HASH_BLOCK_LEN, message, length)
    _hash_into(pads + HASH_BLOCK_LEN, inner, HASH_BLOCK_LEN + length)
    _hash_into(out.address, pads, HASH_BLOCK_LEN + LONG_KEY_LEN)


def _hash_into(out: Any, data: Any, length: int) -> None:
    lib.crypto_generichash_blake2b_salt_personal(
        out, LONG_KEY_LEN, data, length, ffi.NULL, 0, ffi.NULL, ffi.NULL
    )


# Key agreement (RFC 7748) and signatures (RFC 8032)


def x25519_public(private: Key) -> bytes:
    """Compute the public half of an X25519 key: 32 octets."""
    out = _new_raw("unsigned char[]", PUBLIC_LEN)
    lib.crypto_scalarmult_base(out, private.address)
    return bytes(ffi.buffer(out, PUBLIC_LEN))


def x25519(private: Key, public: bytes) -> Key:
    """X25519; CryptoError when the result is all zero (a point of low order)."""
    if len(public) != PUBLIC_LEN:
        raise CryptoError("a public key has 32 octets")
    shared = Key(KEY_LEN)
    if lib.crypto_scalarmult(shared.address, private.address, public):
        shared.wipe()
        raise CryptoError("a point of low order")
    return shared


def signing_key(seed: Key) -> Key:
    """Expand an Ed25519 seed (32 octets) into the key that signs (64)."""
    key = Key(LONG_KEY_LEN)
    public = _new_raw("unsigned char[]", PUBLIC_LEN)
    lib.crypto_sign_seed_keypair(public, key.address, seed.address)
    return key


def signing_public(key: Key) -> bytes:
    """Read the public half out of an expanded Ed25519 key: its last 32 octets."""
    return bytes(ffi.buffer(key.address + KEY_LEN, PUBLIC_LEN))


def sign(key: Key, message: bytes) -> bytes:
    """Ed25519: 64 octets."""
    if key.length != LONG_KEY_LEN:
        raise LocalProtocolError("only an expanded key signs")
    out = _new_raw("unsigned char[]", SIGNATURE_LEN + len(message))
    length = ffi.new("unsigned long long *")
    lib.crypto_sign(out, length, message, len(message), key.address)
    return bytes(ffi.buffer(out, SIGNATURE_LEN))


def verify(public: bytes, message: bytes, signature: bytes) -> None:
    """Ed25519; CryptoError when the signature is not this key's on this message."""
    if len(public) != PUBLIC_LEN or len(signature) != SIGNATURE_LEN:
        raise CryptoError("a signature or its key has the wrong length")
    signed = signature + message
    out = _new_raw("unsigned char[]", len(signed))
    length = ffi.new("unsigned long long *")
    if lib.crypto_sign_open(out, length, signed, len(signed), public):
        raise CryptoError("a signature does not verify")


# Authenticated encryption (RFC 8439, and its 24-octet-nonce extension)


def _seal(function: Any, key: Key, nonce: bytes, text: Octets, ad: Octets) -> bytes:
    length = len(text)
    out = bytes(length + TAG_LEN)  # filled where it is, while nobody else has it
    function(
        _from_buffer(out),
        ffi.NULL,
        _pointer(text),
        length,
        _pointer(ad),
        len(ad),
        ffi.NULL,
        nonce,
        key.address,
    )
    return out


def _open(function: Any, key: Key, nonce: bytes, box: Octets, ad: Octets) -> bytes:
    length = len(box) - TAG_LEN
    if length < 0:
        raise CryptoError("a box is shorter than its tag")
    # Filled where it is, while nobody else has it; an empty one is everybody's.
    out = bytes(length + (not length))
    if function(
        _from_buffer(out),
        ffi.NULL,
        ffi.NULL,
        _pointer(box),
        len(box),
        _pointer(ad),
        len(ad),
        nonce,
        key.address,
    ):
        raise CryptoError("a box does not open")
    return out if length else b""


chacha_seal: Final[Any] = lib.crypto_aead_chacha20poly1305_ietf_encrypt
"""libsodium's own, which checks nothing: for the cell streams alone (cipherstate.py)."""
chacha_open: Final[Any] = lib.crypto_aead_chacha20poly1305_ietf_decrypt
_XCHACHA_SEAL: Final[Any] = lib.crypto_aead_xchacha20poly1305_ietf_encrypt
_XCHACHA_OPEN: Final[Any] = lib.crypto_aead_xchacha20poly1305_ietf_decrypt


def _check(key: Key, nonce: bytes, length: int) -> None:
    if key.length != KEY_LEN or len(nonce) != length:
        raise LocalProtocolError("a cipher takes 32 octets of key and its own nonce")


def seal(key: Key, nonce: bytes, plaintext: Octets, ad: Octets = b"") -> bytes:
    """ChaCha20-Poly1305: len(plaintext) + 16 octets; a nonce serves a key once."""
    _check(key, nonce, NONCE_LEN)
    if len(plaintext) >= BULK_LEN:
        return seal_bulk(key, nonce, plaintext, ad)
    return _seal(chacha_seal, key, nonce, plaintext, ad)


def open_untrusted(key: Key, nonce: bytes, box: Octets, ad: Octets = b"") -> bytes:
    """Open what `seal` made; CryptoError for anything else."""
    _check(key, nonce, NONCE_LEN)
    if len(box) >= BULK_LEN:
        return open_bulk_untrusted(key, nonce, box, ad)
    return _open(chacha_open, key, nonce, box, ad)


def xseal(key: Key, nonce: bytes, plaintext: Octets, ad: Octets = b"") -> bytes:
    """XChaCha20-Poly1305: as `seal`, with 24 octets of nonce that may be random."""
    _check(key, nonce, XNONCE_LEN)
    return _seal(_XCHACHA_SEAL, key, nonce, plaintext, ad)


def xopen_untrusted(key: Key, nonce: bytes, box: Octets, ad: Octets = b"") -> bytes:
    """Open what `xseal` made; CryptoError for anything else."""
    _check(key, nonce, XNONCE_LEN)
    return _open(_XCHACHA_OPEN, key, nonce, box, ad)


# ML-KEM-768 (FIPS 203)


class KemPrivate(Protocol):
    """The half of a KEM key pair that opens."""

    def decapsulate(self, ciphertext: bytes) -> Key:
        """Give the shared secret; a forged ciphertext gives another, silently."""


class Kem(Protocol):
    """A key encapsulation mechanism: ML-KEM-768 in a node, a fixed one in a test."""

    def keypair(self) -> tuple[KemPrivate, bytes]:
        """A fresh private half and its public key of 1,184 octets."""

    def encapsulate(self, public: bytes) -> tuple[Key, bytes]:
        """A shared secret and its ciphertext; CryptoError on a bad public key."""


def _absorb(secret: bytes) -> Key:
    """Move a library's fresh `bytes` into the slab and overwrite the original.

    Nobody else holds it yet, so writing into the immutable object harms no one.
    """
    key = Key.from_bytes(secret)
    ffi.memmove(ffi.from_buffer("unsigned char[]", secret), _ZEROS, len(secret))
    return key


class _MlKemPrivate:
    def __init__(self, private: Any) -> None:
        self._private = private

    def decapsulate(self, ciphertext: bytes) -> Key:
        if len(ciphertext) != KEM_CIPHERTEXT_LEN:
            raise CryptoError("an encapsulation has the wrong length")
        return _absorb(self._private.decapsulate(ciphertext))


class MlKem768:
    """FIPS 203 at its middle size, from `cryptography` (OpenSSL draws the coins)."""

    def keypair(self) -> tuple[KemPrivate, bytes]:
        """Make a fresh private half and its public key of 1,184 octets."""
        from cryptography.hazmat.primitives.asymmetric import mlkem

        private = mlkem.MLKEM768PrivateKey.generate()
        return _MlKemPrivate(private), private.public_key().public_bytes_raw()

    def encapsulate(self, public: bytes) -> tuple[Key, bytes]:
        """Encapsulate to a key that passes FIPS 203's check, else CryptoError."""
        from cryptography.hazmat.primitives.asymmetric import mlkem

        try:
            key = mlkem.MLKEM768PublicKey.from_public_bytes(public)
        except ValueError as error:
            raise CryptoError("an encapsulation key fails its check") from error
        secret, ciphertext = key.encapsulate()
        return _absorb(secret), ciphertext
