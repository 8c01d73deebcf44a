# SPDX-License-Identifier: MIT
"""Known answers for each primitive through our own door, and the life of a key."""

import hashlib
import hmac
from typing import Any

import pytest

from mesh.core import crypto
from mesh.core.crypto import Key
from mesh.errors import CryptoError, LocalProtocolError
from tests.harness import FixedEntropy

H = bytes.fromhex


def key(text: str) -> Key:
    return Key.from_bytes(H(text))


def test_blake2b_known_answers() -> None:
    # RFC 7693, appendix A
    assert crypto.hash512(b"a", b"bc") == H(
        "ba80a53f981c4d0d6a2797b69f12f6e94c212f14685ac4b74b12bb6fdbffa2d1"
        "7d87c5392aab792dc252d5de4533cc9518d38aa8dbf1925ab92386edd4009923"
    )
    assert (
        crypto.hash256(b"ab", b"c") == hashlib.blake2b(b"abc", digest_size=32).digest()
    )


def test_keyed_blake2b_known_answer() -> None:
    # The reference implementation's blake2-kat, blake2b, in = 00, key = 00..3f
    secret = Key.from_bytes(bytes(range(64)))
    expected = H(
        "961f6dd1e4dd30f63901690c512e78e4b45e4742ed197c3c5e45c549fd25f2e4"
        "187b0bc9fe30492b16b0d0bc4ef9b0f34c7003fac09a5ef1532e69430234cebd"
    )
    assert crypto.keyed_hash(secret, b"\0", 64) == expected
    assert crypto.derive_key(secret, b"\0", 64).unsafe_bytes() == expected
    with pytest.raises(LocalProtocolError):
        crypto.keyed_hash(secret, b"\0", 65)


def test_hkdf_is_noises() -> None:
    chaining, given = bytes(range(64)), bytes(range(100, 132))

    def mac(secret: bytes, text: bytes) -> bytes:
        return hmac.new(secret, text, "blake2b").digest()

    temp = mac(chaining, given)
    first = mac(temp, b"\x01")
    second = mac(temp, first + b"\x02")
    out = crypto.hkdf(Key.from_bytes(chaining), Key.from_bytes(given))
    assert out[0].unsafe_bytes() == first
    assert out[1].unsafe_bytes() == second[:32]


def test_x25519_known_answer() -> None:
    # RFC 7748, section 6.1
    bob = key("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb")
    alice_public = H("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a")
    assert crypto.x25519_public(bob) == H(
        "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f"
    )
    assert crypto.x25519(bob, alice_public) == key(
        "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742"
    )


def test_x25519_refuses_points_of_low_order() -> None:
    private = FixedEntropy().key()
    for point in (bytes(32), b"\x01" + bytes(31)):
        with pytest.raises(CryptoError):
            crypto.x25519(private, point)
    with pytest.raises(CryptoError):
        crypto.x25519(private, bytes(31))


def test_ed25519_known_answer() -> None:
    # RFC 8032, section 7.1, test 2
    expanded = crypto.signing_key(
        key("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb")
    )
    public = crypto.signing_public(expanded)
    assert public == H(
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c"
    )
    signature = crypto.sign(expanded, b"\x72")
    assert signature == H(
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
        "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
    )
    crypto.verify(public, b"\x72", signature)
    for bad in (
        (public, b"\x73", signature),
        (public, b"\x72", signature[:-1]),
        (public[:-1], b"\x72", signature),
        (public, b"\x72", bytes(64)),
    ):
        with pytest.raises(CryptoError):
            crypto.verify(*bad)
    with pytest.raises(LocalProtocolError):
        crypto.sign(FixedEntropy().key(), b"a seed does not sign")


SUNSCREEN = (
    b"Ladies and Gentlemen of the class of '99: If I could offer you "
    b"only one tip for the future, sunscreen would be it."
)
AEAD_KEY = bytes(range(0x80, 0xA0))
AEAD_AD = H("50515253c0c1c2c3c4c5c6c7")


def test_chacha20poly1305_known_answer() -> None:
    # RFC 8439, section 2.8.2
    secret = Key.from_bytes(AEAD_KEY)
    nonce = H("070000004041424344454647")
    box = crypto.seal(secret, nonce, SUNSCREEN, AEAD_AD)
    assert box[:16] == H("d31a8d34648e60db7b86afbc53ef7ec2")
    assert box[-16:] == H("1ae10b594f09e26a7e902ecbd0600691")
    assert crypto.open_untrusted(secret, nonce, memoryview(box), AEAD_AD) == SUNSCREEN
    _refuses_all_else(crypto.open_untrusted, secret, nonce, box)


def test_xchacha20poly1305_known_answer() -> None:
    # draft-irtf-cfrg-xchacha-03, appendix A.3.1
    secret = Key.from_bytes(AEAD_KEY)
    nonce = bytes(range(0x40, 0x58))
    box = crypto.xseal(secret, nonce, bytearray(SUNSCREEN), AEAD_AD)
    assert box[:16] == H("bd6d179d3e83d43b9576579493c0e939")
    assert box[-16:] == H("c0875924c1c7987947deafd8780acf49")
    assert crypto.xopen_untrusted(secret, nonce, box, AEAD_AD) == SUNSCREEN
    _refuses_all_else(crypto.xopen_untrusted, secret, nonce, box)


def _refuses_all_else(opener: Any, secret: Key, nonce: bytes, box: bytes) -> None:
    for at in range(len(box)):
        with pytest.raises(CryptoError):
            opener(
                secret, nonce, box[:at] + bytes([box[at] ^ 1]) + box[at + 1 :], AEAD_AD
            )
    for length in (0, 15, 16, len(box) - 1):
        with pytest.raises(CryptoError):
            opener(secret, nonce, box[:length], AEAD_AD)
    with pytest.raises(CryptoError):
        opener(secret, nonce, box, b"")
    with pytest.raises(LocalProtocolError):
        opener(secret, nonce[1:], box, AEAD_AD)
    with pytest.raises(LocalProtocolError):
        opener(Key(64), nonce, box, AEAD_AD)


def test_an_empty_box_opens_to_nothing() -> None:
    secret = FixedEntropy().key()
    box = crypto.seal(secret, bytes(12), b"")
    assert crypto.open_untrusted(secret, bytes(12), box) == b""


def test_ml_kem_agrees_with_itself_and_with_cryptography() -> None:
    kem = crypto.MlKem768()
    private, public = kem.keypair()
    assert len(public) == crypto.KEM_PUBLIC_LEN
    secret, ciphertext = kem.encapsulate(public)
    assert len(ciphertext) == crypto.KEM_CIPHERTEXT_LEN
    assert private.decapsulate(ciphertext) == secret
    forged = bytes([ciphertext[0] ^ 1]) + ciphertext[1:]
    assert private.decapsulate(forged) != secret
    with pytest.raises(CryptoError):
        private.decapsulate(ciphertext[:-1])


def test_ml_kem_refuses_keys_that_fail_fips_203s_check() -> None:
    kem = crypto.MlKem768()
    for bad in (b"", bytes(1183), b"\xff" * 1184):
        with pytest.raises(CryptoError):
            kem.encapsulate(bad)


def test_a_library_secret_is_overwritten_where_it_lay() -> None:
    secret = bytes(bytearray(range(1, 33)))
    taken = crypto._absorb(secret)
    assert taken.unsafe_bytes() == bytes(range(1, 33))
    assert secret == bytes(32)


def test_same_compares_contents_and_lengths() -> None:
    assert crypto.same(b"abc", bytearray(b"abc"))
    assert not crypto.same(b"abc", b"abd")
    assert not crypto.same(b"abc", b"ab")


def test_system_entropy_draws() -> None:
    entropy = crypto.SystemEntropy()
    assert len(entropy.octets(24)) == 24
    assert entropy.octets(0) == b""
    assert entropy.octets(16) != entropy.octets(16)
    assert entropy.key() != entropy.key()
