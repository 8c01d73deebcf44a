# SPDX-License-Identifier: MIT
"""The counter and the key: against another library, and where each must stop."""

import hashlib

import pytest
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from mesh.core.cipherstate import REJECT_AFTER, CipherState
from mesh.core.crypto import Key, address_of
from mesh.errors import CryptoError, LocalProtocolError

SECRET = bytes(range(32))


def make() -> CipherState:
    return CipherState(Key.from_bytes(SECRET))


def test_nonces_count_from_zero_big_endian() -> None:
    ours, theirs = make(), ChaCha20Poly1305(SECRET)
    for count in range(300):
        assert ours.count == count
        box = ours.encrypt_with_ad(b"ad", b"text")
        assert box == theirs.encrypt(count.to_bytes(12, "big"), b"text", b"ad")


def test_opens_in_order_and_stays_where_a_box_does_not_open() -> None:
    sealer, opener = make(), make()
    first, second = (sealer.encrypt_with_ad(b"", text) for text in (b"one", b"two"))
    with pytest.raises(CryptoError):
        opener.decrypt_with_ad_untrusted(b"", second)
    assert opener.count == 0
    with pytest.raises(CryptoError):
        opener.decrypt_with_ad_untrusted(b"another ad", first)
    assert opener.decrypt_with_ad_untrusted(b"", first) == b"one"
    with pytest.raises(CryptoError):
        opener.decrypt_with_ad_untrusted(b"", first)
    assert opener.decrypt_with_ad_untrusted(b"", bytearray(second)) == b"two"


def test_boxes_made_where_they_lie_count_with_the_others() -> None:
    ours, theirs, opener = make(), make(), make()
    for count in range(4):
        room = bytearray(b"text" + bytes(16))
        box = theirs.encrypt_with_ad(b"", b"text")
        if count % 2:
            assert ours.seal_over(address_of(room), 4) == count + 1
            assert room == box
        else:
            assert ours.encrypt_with_ad(b"", b"text") == box
        place = address_of(bytearray(box))
        opened = bytearray(4)
        assert opener.open_into_untrusted(place, 20, address_of(opened)) == count + 1
        assert opened == b"text"
        with pytest.raises(CryptoError):
            opener.open_into_untrusted(place, 20, address_of(opened))
        assert opened == bytes(4)  # nothing of a box that does not open
        assert opener.count == count + 1


def test_many_boxes_at_once_count_with_the_others() -> None:
    ours, theirs, opener = make(), make(), make()
    ours.encrypt_with_ad(b"", b"first")
    opener.decrypt_with_ad_untrusted(b"", theirs.encrypt_with_ad(b"", b"first"))
    texts = [memoryview(b"%d" % count) for count in range(5)]
    boxes = [memoryview(bytearray(17)) for _ in texts]
    assert ours.seal_each(texts[:3], boxes[:3]) == 4
    assert ours.seal_each(texts[3:], boxes[3:]) == 6
    for text, box in zip(texts, boxes, strict=True):
        assert box == theirs.encrypt_with_ad(b"", text)
    boxes[3][0] ^= 1
    places = [memoryview(bytearray(1)) for _ in texts]
    assert opener.open_each_untrusted(boxes[:2], places[:2]) == 3
    assert opener.open_each_untrusted(boxes[2:], places[2:]) == opener.count == 4
    assert places[:3] == texts[:3]
    with pytest.raises(CryptoError):
        opener.decrypt_with_ad_untrusted(b"", boxes[3])


def test_a_box_for_which_there_is_no_place_has_had_its_nonce() -> None:
    state = make()
    with pytest.raises(ValueError, match="shorter"):
        state.seal_each(
            [memoryview(b"1"), memoryview(b"2")], [memoryview(bytearray(17))]
        )
    assert state.count == 2


def test_nothing_is_made_where_it_lies_past_the_limit_or_without_a_key() -> None:
    room = bytearray(20)
    place, other = address_of(room), address_of(bytearray(4))
    spent = make()
    for _ in range(REJECT_AFTER):
        spent.encrypt_with_ad(b"", b"")
    wiped = make()
    wiped.wipe()
    for state in (spent, wiped):
        with pytest.raises(LocalProtocolError):
            state.seal_over(place, 4)
        with pytest.raises(LocalProtocolError):
            state.open_into_untrusted(place, 20, other)
        with pytest.raises(LocalProtocolError):
            state.seal_each([memoryview(bytes(4))], [memoryview(room)])
        with pytest.raises(LocalProtocolError):
            state.open_each_untrusted([memoryview(room)], [memoryview(bytearray(4))])
    assert not any(room)


def test_a_key_of_another_length_is_no_cipher_s() -> None:
    with pytest.raises(LocalProtocolError):
        CipherState(Key(64))


def test_rekey_is_the_keyed_hash_and_starts_the_count_again() -> None:
    key = Key.from_bytes(SECRET)
    state = CipherState(key)
    state.encrypt_with_ad(b"", b"")
    state.rekey()
    with pytest.raises(LocalProtocolError):
        key.unsafe_bytes()  # the old key is gone
    assert state.count == 0
    following = hashlib.blake2b(b"mesh/1 rekey", key=SECRET, digest_size=32).digest()
    box = ChaCha20Poly1305(following).encrypt(bytes(12), b"text", b"")
    assert state.encrypt_with_ad(b"", b"text") == box


def test_refuses_to_go_on_past_its_limit() -> None:
    sealer, opener = make(), make()
    for _ in range(REJECT_AFTER):
        opener.decrypt_with_ad_untrusted(b"", sealer.encrypt_with_ad(b"", b""))
    with pytest.raises(LocalProtocolError):
        sealer.encrypt_with_ad(b"", b"")
    with pytest.raises(LocalProtocolError):
        opener.decrypt_with_ad_untrusted(b"", bytes(16))
    assert sealer.count == REJECT_AFTER
    sealer.rekey()
    assert len(sealer.encrypt_with_ad(b"", b"")) == 16


def test_wiped_is_the_end() -> None:
    key = Key.from_bytes(SECRET)
    state = CipherState(key)
    state.wipe()
    state.wipe()
    for use in (
        key.unsafe_bytes,
        lambda: state.encrypt_with_ad(b"", b""),
        lambda: state.decrypt_with_ad_untrusted(b"", bytes(16)),
        state.rekey,
    ):
        with pytest.raises(LocalProtocolError):
            use()


def test_a_key_that_has_done_nothing_may_be_given_away() -> None:
    key = Key.from_bytes(SECRET)
    state = CipherState(key)
    given = state.surrender()
    assert given.unsafe_bytes() == SECRET
    for use in (
        key.unsafe_bytes,
        lambda: state.encrypt_with_ad(b"", b""),
        lambda: state.decrypt_with_ad_untrusted(b"", bytes(16)),
        state.surrender,
    ):
        with pytest.raises(LocalProtocolError):
            use()
    assert given.unsafe_bytes() == SECRET  # it has a life of its own


def test_a_key_that_has_sealed_or_opened_stays() -> None:
    sealer, opener = make(), make()
    opener.decrypt_with_ad_untrusted(b"", sealer.encrypt_with_ad(b"", b"text"))
    for state in (sealer, opener):
        with pytest.raises(LocalProtocolError):
            state.surrender()
    box = sealer.encrypt_with_ad(b"", b"text")  # and was not lost by asking
    assert opener.decrypt_with_ad_untrusted(b"", box) == b"text"
