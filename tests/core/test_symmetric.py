# SPDX-License-Identifier: MIT
"""The transcript, against the straight-line one; the outer box, against everything."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.core.crypto import Key
from mesh.core.symmetric import (
    FILLED_LEN,
    MESSAGE_LEN,
    SymmetricState,
    open_outer_untrusted,
    seal_outer,
)
from mesh.errors import CryptoError, LocalProtocolError
from tests.handshakes import live_keys, settled_keys
from tests.straightline import Transcript, xs

SECRETS = [hashlib.sha256(b"%d" % number).digest() for number in range(3)]
NONCE = bytes(range(24))
KEY = bytes(range(32))


def key() -> Key:
    return Key.from_bytes(KEY)


def test_the_straight_line_agrees_at_every_step() -> None:
    ours, theirs, opening = SymmetricState(), Transcript(), SymmetricState()
    for secret in SECRETS:
        for side in (ours, opening):
            side.mix_hash(b"some ", b"octets")
            side.mix_key(Key.from_bytes(secret))
        theirs.mix_hash(b"some octets")
        theirs.mix_key(secret)
        for text in (b"first", b"second", b""):
            box = ours.encrypt_and_hash(text)
            assert box == theirs.encrypt(text)
            assert opening.decrypt_and_hash_untrusted(box) == text
        assert ours.hash == opening.hash == theirs.h
        assert ours.signed(b"who") == theirs.signed(b"who")
        assert ours.derive(b"I->R").unsafe_bytes() == theirs.key(b"I->R")


def test_a_box_holds_for_its_place_in_the_transcript_only() -> None:
    sealing, opening = SymmetricState(), SymmetricState()
    for side in (sealing, opening):
        side.mix_key(Key.from_bytes(SECRETS[0]))
    box = sealing.encrypt_and_hash(b"text")
    opening.mix_hash(b"something that the other side did not say")
    with pytest.raises(CryptoError):
        opening.decrypt_and_hash_untrusted(box)


def test_nothing_is_sealed_or_opened_without_a_key() -> None:
    state = SymmetricState()
    with pytest.raises(LocalProtocolError):
        state.encrypt_and_hash(b"in clear")
    with pytest.raises(LocalProtocolError):
        state.decrypt_and_hash_untrusted(b"in clear")


def test_every_secret_is_wiped() -> None:
    before = settled_keys()
    secret = Key.from_bytes(SECRETS[0])
    state = SymmetricState()
    state.mix_key(secret)
    with pytest.raises(LocalProtocolError):
        secret.unsafe_bytes()
    past = state._cipher
    state.mix_key(Key.from_bytes(SECRETS[1]))
    assert past is not None
    with pytest.raises(LocalProtocolError):
        past.encrypt_with_ad(b"", b"")
    assert live_keys() == before + 2  # ck and k; those before them are gone
    state.wipe()
    state.wipe()
    assert live_keys() == before
    with pytest.raises(LocalProtocolError):
        state.derive(b"too late")
    fresh = SymmetricState()
    fresh.wipe()
    assert live_keys() == before


def test_the_outer_box_is_4096_octets_and_known() -> None:
    wire = seal_outer(key(), NONCE, b"1", b"payload")
    assert len(wire) == MESSAGE_LEN
    assert wire == xs(KEY, NONCE, b"1", b"payload")
    for kind in (bytes, bytearray, memoryview):
        opened = open_outer_untrusted(key(), kind(wire), b"1", 7)
        assert opened == (NONCE, b"payload")
    whole = bytes(FILLED_LEN)
    wire = seal_outer(key(), NONCE, b"1", whole)
    assert open_outer_untrusted(key(), wire, b"1", FILLED_LEN) == (NONCE, whole)


def test_too_much_is_our_own_mistake() -> None:
    with pytest.raises(LocalProtocolError):
        seal_outer(key(), NONCE, b"1", bytes(FILLED_LEN + 1))


@pytest.mark.parametrize(
    "wire",
    [
        b"",
        bytes(MESSAGE_LEN),
        xs(KEY, NONCE, b"1", b"payload")[:-1],
        xs(KEY, NONCE, b"1", b"payload") + b"\0",
        xs(KEY, NONCE, b"1", bytes(FILLED_LEN + 1)),
        xs(KEY, NONCE, b"1", bytes(FILLED_LEN - 1))[:24],
        xs(KEY, NONCE, b"2", b"payload"),
        xs(KEY[::-1], NONCE, b"1", b"payload"),
        xs(KEY, NONCE, b"1", b"payload" + b"\1"),
        xs(KEY, NONCE, b"1", (b"payload" + bytes(FILLED_LEN)))[:MESSAGE_LEN],
        xs(KEY, NONCE, b"1", b"payload".ljust(FILLED_LEN - 1, b"\0") + b"\x80"),
    ],
)
def test_what_is_no_message_is_refused_and_the_key_wiped(wire: bytes) -> None:
    secret = key()
    with pytest.raises(CryptoError):
        open_outer_untrusted(secret, wire, b"1", 7)
    with pytest.raises(LocalProtocolError):
        secret.unsafe_bytes()


def test_the_key_is_wiped_when_it_opens_too() -> None:
    sealing, opening = key(), key()
    wire = seal_outer(sealing, NONCE, b"1", b"payload")
    open_outer_untrusted(opening, wire, b"1", 7)
    for secret in (sealing, opening):
        with pytest.raises(LocalProtocolError):
            secret.unsafe_bytes()


@given(st.integers(0, MESSAGE_LEN * 8 - 1))
def test_any_flipped_bit_is_refused(bit: int) -> None:
    wire = bytearray(xs(KEY, NONCE, b"1", b"payload"))
    wire[bit // 8] ^= 1 << bit % 8
    with pytest.raises(CryptoError):
        open_outer_untrusted(key(), wire, b"1", 7)
