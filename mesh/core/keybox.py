# SPDX-License-Identifier: MIT
"""A key inside a box: how a key lies on a disk, and never as `bytes` in memory.

    nonce 24 | XChaCha20-Poly1305(wrapping key; before | key 32 | after) | tag 16

`before` and `after` are public octets that travel with the key.  The plaintext is laid
together in locked memory, sealed from there and opened to there, and zeroed before
either function returns; what comes out is a `Key`.

Invariant: the nonce is random and new for each seal.  One locked scratch serves all
calls, so they belong to one thread.
"""

from typing import Any, Final

from mesh.core import memory
from mesh.core.crypto import KEY_LEN, TAG_LEN, XNONCE_LEN, Key
from mesh.errors import CryptoError, LocalProtocolError

PLAIN_MAX: Final = 256
"""Octets of before, key and after: the largest, an arena's key file, has 129."""

OVERHEAD: Final = XNONCE_LEN + TAG_LEN
"""Octets that a box adds to before, key and after."""

_lib: Final[Any] = memory.lib
_ffi: Final[Any] = memory.ffi
_move: Final[Any] = memory.ffi.memmove
_scratch: Final[Any] = memory.new_locked(4096)
_SEAL: Final[Any] = memory.lib.crypto_aead_xchacha20poly1305_ietf_encrypt
_OPEN: Final[Any] = memory.lib.crypto_aead_xchacha20poly1305_ietf_decrypt
_new_raw: Final[Any] = memory.ffi.new_allocator(should_clear_after_alloc=False)


def seal_key(
    wrapping: Key, nonce: bytes, before: bytes, key: Key, after: bytes, ad: bytes
) -> bytes:
    """Seal a key of 32 octets between two public parts: nonce, box and tag.

    LocalProtocolError when a length is not what the module's header says.
    """
    head = len(before)
    length = head + KEY_LEN + len(after)
    if len(key) != KEY_LEN or len(nonce) != XNONCE_LEN or length > PLAIN_MAX:
        raise LocalProtocolError("a boxed key has 32 octets and small company")
    out = _new_raw("unsigned char[]", length + TAG_LEN)
    _move(_scratch, before, head)
    _move(_scratch + head, key.address, KEY_LEN)
    _move(_scratch + head + KEY_LEN, after, len(after))
    _SEAL(
        out,
        _ffi.NULL,
        _scratch,
        length,
        ad,
        len(ad),
        _ffi.NULL,
        nonce,
        wrapping.address,
    )
    _lib.sodium_memzero(_scratch, length)
    return nonce + _ffi.buffer(out, length + TAG_LEN)[:]  # type: ignore[no-any-return]


def open_key_untrusted(
    wrapping: Key, box: bytes, before_len: int, ad: bytes
) -> tuple[bytes, Key, bytes]:
    """Open what `seal_key` made: (before, key, after); CryptoError for all else."""
    length = len(box) - OVERHEAD
    if not before_len + KEY_LEN <= length <= PLAIN_MAX:
        raise CryptoError("a boxed key has the wrong length")
    refused = _OPEN(
        _scratch,
        _ffi.NULL,
        _ffi.NULL,
        box[XNONCE_LEN:],
        length + TAG_LEN,
        ad,
        len(ad),
        box,
        wrapping.address,
    )
    if refused:
        raise CryptoError("a boxed key does not open")
    key = Key()
    _move(key.address, _scratch + before_len, KEY_LEN)
    before = _ffi.buffer(_scratch, before_len)[:]
    at = before_len + KEY_LEN
    after = _ffi.buffer(_scratch + at, length - at)[:]
    _lib.sodium_memzero(_scratch, length)
    return before, key, after
