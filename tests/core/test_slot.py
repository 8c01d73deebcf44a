# SPDX-License-Identifier: MIT
"""Slots: all alike from outside, each bound to its place, exact inside."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.core.crypto import Key, xopen_untrusted
from mesh.core.keybox import seal_key
from mesh.core.slot import (
    EMPTY,
    ID_DONE,
    KEYS_LEN,
    SLOT_LEN,
    ArenaKeys,
    Tombstone,
    open_keys_untrusted,
    open_slot_untrusted,
    pack_tombstone,
    parse_filling_untrusted,
    seal_keys,
    seal_slot,
)
from mesh.errors import CryptoError, EncodingError
from tests.harness import FixedEntropy

ENTROPY = FixedEntropy("slot")
ARENA, KEY, OTHER = ENTROPY.key(), ENTROPY.key(), ENTROPY.key()
NONCE = bytes(range(24))
MARK = Tombstone(b"o" * 16, b"i" * 16, 691200)


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1))
def test_a_slot_opens_at_its_place_only(number: int, generation: int) -> None:
    slot = seal_slot(ARENA, NONCE, number, generation, KEY, EMPTY)
    assert len(slot) == SLOT_LEN
    assert open_slot_untrusted(ARENA, number, slot) == (generation, KEY, EMPTY)
    with pytest.raises(CryptoError):
        open_slot_untrusted(ARENA, number + 1, slot)
    with pytest.raises(CryptoError):
        open_slot_untrusted(OTHER, number, slot)


def test_the_octets_are_those_of_the_header() -> None:
    slot = seal_slot(ARENA, NONCE, 7, 5, KEY, pack_tombstone(MARK))
    text = xopen_untrusted(ARENA, slot[:24], slot[24:], struct.pack(">Q", 7))
    assert slot[:24] == NONCE
    assert text[:8] == struct.pack(">Q", 5)
    assert text[8:40] == KEY.unsafe_bytes()
    assert text[40:] == b"\1" + b"o" * 16 + b"i" * 16 + struct.pack(">Q7x", 691200)
    generation, key, filling = open_slot_untrusted(ARENA, 7, slot)
    assert (generation, key) == (5, KEY)
    assert parse_filling_untrusted(filling) == MARK


@given(st.integers(0, SLOT_LEN - 1), st.integers(1, 255))
def test_any_change_keeps_a_slot_shut(at: int, flip: int) -> None:
    slot = bytearray(seal_slot(ARENA, NONCE, 7, 5, KEY, EMPTY))
    slot[at] ^= flip
    with pytest.raises(CryptoError):
        open_slot_untrusted(ARENA, 7, bytes(slot))


@pytest.mark.parametrize("length", [0, 87, 127, 129, 4096])
def test_a_slot_of_another_length_does_not_open(length: int) -> None:
    with pytest.raises(CryptoError):
        open_slot_untrusted(ARENA, 7, bytes(length))


@given(
    st.binary(min_size=16, max_size=16),
    st.binary(min_size=16, max_size=16),
    st.integers(0, 2**64 - 1),
)
def test_a_tombstone_comes_back(origin: bytes, ident: bytes, expiry: int) -> None:
    one = Tombstone(origin, ident, expiry)
    assert parse_filling_untrusted(pack_tombstone(one)) == one


def test_an_empty_filling_is_no_tombstone() -> None:
    assert parse_filling_untrusted(EMPTY) is None
    assert b"\2" + bytes(47) == ID_DONE
    assert parse_filling_untrusted(ID_DONE) is None


@pytest.mark.parametrize(
    "filling",
    [b"", pack_tombstone(MARK)[:-1], b"\3" + bytes(47), bytes(47) + b"\1"],
)
def test_a_filling_that_we_never_write_is_refused(filling: bytes) -> None:
    with pytest.raises(EncodingError):
        parse_filling_untrusted(filling)


@given(st.binary(max_size=48))
def test_garbage_in_a_filling_raises_only_its_error(filling: bytes) -> None:
    for octets in (filling, filling.ljust(48, b"\0")):
        try:
            found = parse_filling_untrusted(octets)
        except EncodingError:
            continue
        assert octets == (EMPTY if found is None else pack_tombstone(found))


@pytest.mark.parametrize("previous", [None, OTHER])
def test_the_arena_key_comes_back(previous: Key | None) -> None:
    keys = ArenaKeys(3, 86400, 4096, KEY, previous)
    box = seal_keys(ARENA, (NONCE, bytes(24)), keys)
    assert len(box) == KEYS_LEN
    assert open_keys_untrusted(ARENA, box) == keys
    with pytest.raises(CryptoError):
        open_keys_untrusted(OTHER, box)
    for at in range(0, KEYS_LEN, 13):
        bad = bytearray(box)
        bad[at] ^= 1
        with pytest.raises(CryptoError):
            open_keys_untrusted(ARENA, bytes(bad))


@pytest.mark.parametrize("after", [b"", b"\1" + bytes(71), b"\1" + bytes(72)])
def test_an_arena_key_of_another_form_is_refused(after: bytes) -> None:
    box = seal_key(ARENA, NONCE, bytes(24), KEY, after, b"arena")
    with pytest.raises(CryptoError):
        open_keys_untrusted(ARENA, box)
