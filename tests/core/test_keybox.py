# SPDX-License-Identifier: MIT
"""Keys in boxes: XChaCha20-Poly1305 as everybody computes it, exact in its bounds."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.core.crypto import LONG_KEY_LEN, Key, xopen_untrusted, xseal
from mesh.core.keybox import OVERHEAD, PLAIN_MAX, _scratch, open_key_untrusted, seal_key
from mesh.errors import CryptoError, LocalProtocolError
from tests.harness import FixedEntropy

ENTROPY = FixedEntropy("keybox")
WRAPPING, KEY = ENTROPY.key(), ENTROPY.key()
NONCE = bytes(range(24))
parts = st.binary(max_size=(PLAIN_MAX - 32) // 2)


@given(parts, parts, st.binary(max_size=40))
def test_a_key_comes_back_between_its_parts(
    before: bytes, after: bytes, ad: bytes
) -> None:
    box = seal_key(WRAPPING, NONCE, before, KEY, after, ad)
    plain = before + KEY.unsafe_bytes() + after
    assert box == NONCE + xseal(WRAPPING, NONCE, plain, ad)
    assert xopen_untrusted(WRAPPING, box[:24], box[24:], ad) == plain
    assert open_key_untrusted(WRAPPING, box, len(before), ad) == (before, KEY, after)
    assert bytes(_scratch[at] for at in range(PLAIN_MAX)) == bytes(PLAIN_MAX)


@given(st.binary(max_size=PLAIN_MAX + OVERHEAD + 8))
def test_garbage_raises_only_its_error(box: bytes) -> None:
    with pytest.raises(CryptoError):
        open_key_untrusted(WRAPPING, box, 8, b"")


def test_bounds_are_checked_before_anything_is_written() -> None:
    for nonce, key, after in (
        (NONCE[1:], KEY, b""),
        (NONCE, Key(LONG_KEY_LEN), b""),
        (NONCE, KEY, bytes(PLAIN_MAX)),
    ):
        with pytest.raises(LocalProtocolError):
            seal_key(WRAPPING, nonce, b"", key, after, b"")
    whole = seal_key(WRAPPING, NONCE, b"12345678", KEY, b"", b"")
    with pytest.raises(CryptoError):
        open_key_untrusted(WRAPPING, whole, 9, b"")
    long = xseal(WRAPPING, NONCE, bytes(PLAIN_MAX + 1))
    with pytest.raises(CryptoError):
        open_key_untrusted(WRAPPING, NONCE + long, 8, b"")


def test_a_changed_box_does_not_open() -> None:
    box = bytearray(seal_key(WRAPPING, NONCE, b"12345678", KEY, b"after", b"ad"))
    box[-1] ^= 1
    with pytest.raises(CryptoError):
        open_key_untrusted(WRAPPING, bytes(box), 8, b"ad")
    assert bytes(_scratch[at] for at in range(PLAIN_MAX)) == bytes(PLAIN_MAX)
