# SPDX-License-Identifier: MIT
"""A direction of cells: known answers over rekeys, and every way to break the order."""

import hashlib
import itertools

import pytest
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from hypothesis import given
from hypothesis import strategies as st

from mesh.core.cell import BODY_LEN, CELL_LEN
from mesh.core.cellstream import REKEY_AFTER_CELLS, CellOpener, CellSealer
from mesh.core.crypto import Key, address_of
from mesh.errors import CryptoError, LocalProtocolError

SECRET = bytes(range(1, 33))
OTHER = bytes(range(2, 34))
RUN = 2 * REKEY_AFTER_CELLS + 9


def key(secret: bytes = SECRET) -> Key:
    return Key.from_bytes(secret)


def body(number: int) -> bytes:
    return number.to_bytes(2, "big") * (BODY_LEN // 2)


def recorded(secret: bytes = SECRET) -> list[bytes]:
    sealer = CellSealer(key(secret))
    return [sealer.seal(body(number)) for number in range(RUN)]


CELLS = recorded()
FOREIGN = recorded(OTHER)


def assert_dead(opener: CellOpener, cell: bytes) -> None:
    with pytest.raises(CryptoError):
        opener.open_untrusted(cell)
    for later in (cell, *CELLS):  # not even the right one brings it back
        with pytest.raises(CryptoError):
            opener.open_untrusted(later)


def opened(count: int) -> CellOpener:
    """An opener that has opened the first `count` cells of the run."""
    opener = CellOpener(key())
    for number in range(count):
        assert opener.open_untrusted(CELLS[number]) == body(number)
    return opener


def test_known_answers_with_a_new_key_after_each_64_cells() -> None:
    secret = SECRET
    for number, cell in enumerate(CELLS):
        if number and number % 64 == 0:
            secret = hashlib.blake2b(
                b"mesh/1 rekey", key=secret, digest_size=32
            ).digest()
        nonce = (number % 64).to_bytes(12, "big")
        assert cell == ChaCha20Poly1305(secret).encrypt(nonce, body(number), None)
        assert len(cell) == CELL_LEN


def test_the_old_key_is_wiped_at_the_64th_cell() -> None:
    sealing, opening = key(), key()
    sealer, opener = CellSealer(sealing), CellOpener(opening)
    for _ in range(63):
        opener.open_untrusted(sealer.seal(bytes(BODY_LEN)))
    assert sealing.unsafe_bytes() == opening.unsafe_bytes() == SECRET
    opener.open_untrusted(sealer.seal(bytes(BODY_LEN)))
    for old in (sealing, opening):
        with pytest.raises(LocalProtocolError):
            old.unsafe_bytes()


def test_a_whole_run_opens_from_any_kind_of_buffer() -> None:
    opener = opened(RUN - 3)
    for number, kind in enumerate((bytes, bytearray, memoryview), RUN - 3):
        assert opener.open_untrusted(kind(CELLS[number])) == body(number)


def test_a_whole_run_where_it_lies() -> None:
    sealer, opener = CellSealer(key()), CellOpener(key())
    for number, cell in enumerate(CELLS):
        room = bytearray(body(number) + bytes(CELL_LEN - BODY_LEN))
        sealer.seal_over(address_of(room))
        assert room == cell
        opened = bytearray(BODY_LEN)
        opener.open_into_untrusted(address_of(room), address_of(opened))
        assert opened == body(number)


AT = st.integers(0, RUN - 2)


def test_a_changed_cell_where_it_lies() -> None:
    opener, opened_ = opened(1), bytearray(BODY_LEN)
    changed = CELLS[1][:-1] + bytes([CELLS[1][-1] ^ 1])
    for cell in (changed, CELLS[1]):  # and not even the right one after it
        with pytest.raises(CryptoError):
            opener.open_into_untrusted(address_of(bytearray(cell)), address_of(opened_))


@given(AT)
def test_a_dropped_cell_where_it_lies(at: int) -> None:
    opener, opened_ = opened(at), bytearray(BODY_LEN)
    for cell in (CELLS[at + 1], CELLS[at]):  # and not even the right one after it
        with pytest.raises(CryptoError):
            opener.open_into_untrusted(address_of(bytearray(cell)), address_of(opened_))
    assert not any(opened_)


@given(AT, st.integers(0, CELL_LEN * 8 - 1))
def test_a_flipped_bit(at: int, bit: int) -> None:
    cell = bytearray(CELLS[at])
    cell[bit // 8] ^= 1 << bit % 8
    assert_dead(opened(at), bytes(cell))


@given(AT)
def test_a_dropped_cell(at: int) -> None:
    assert_dead(opened(at), CELLS[at + 1])


@given(AT)
def test_a_repeated_cell(at: int) -> None:
    assert_dead(opened(at + 1), CELLS[at])


@given(AT, st.integers(0, RUN - 1))
def test_swapped_cells(at: int, other: int) -> None:
    if other != at:
        assert_dead(opened(at), CELLS[other])


@given(AT)
def test_a_cell_of_another_stream(at: int) -> None:
    assert_dead(opened(at), FOREIGN[at])


@given(AT, st.integers(1, CELL_LEN - 1))
def test_spliced_cells(at: int, cut: int) -> None:
    assert_dead(opened(at), CELLS[at][:cut] + CELLS[at + 1][cut:])
    assert_dead(opened(at), CELLS[at][:cut] + FOREIGN[at][cut:])


@pytest.mark.parametrize("length", [0, 1, 15, 16, 17, CELL_LEN - 1, CELL_LEN + 1])
def test_another_length(length: int) -> None:
    assert_dead(opened(1), (CELLS[1] + CELLS[2])[:length])


def test_a_short_box_of_the_right_key_is_no_cell() -> None:
    """Only the length is wrong: a tag that holds does not save it."""
    short = ChaCha20Poly1305(SECRET).encrypt(bytes(12), b"short", None)
    assert_dead(CellOpener(key()), short)


def test_noise_is_no_cell() -> None:
    assert_dead(opened(3), hashlib.shake_256(b"noise").digest(CELL_LEN))


def test_a_failed_open_wipes_the_key() -> None:
    secret = key()
    opener = CellOpener(secret)
    with pytest.raises(CryptoError):
        opener.open_untrusted(bytes(CELL_LEN))
    with pytest.raises(LocalProtocolError):
        secret.unsafe_bytes()


def test_wiped_ends_both_ways() -> None:
    sealing, opening = key(), key()
    sealer, opener = CellSealer(sealing), CellOpener(opening)
    sealer.wipe()
    opener.wipe()
    with pytest.raises(LocalProtocolError):
        sealer.seal(bytes(BODY_LEN))
    with pytest.raises(CryptoError):
        opener.open_untrusted(CELLS[0])
    for secret in (sealing, opening):
        with pytest.raises(LocalProtocolError):
            secret.unsafe_bytes()


@pytest.mark.parametrize("length", [0, BODY_LEN - 1, BODY_LEN + 1])
def test_only_whole_bodies_are_sealed(length: int) -> None:
    sealer = CellSealer(key())
    with pytest.raises(LocalProtocolError):
        sealer.seal(bytes(length))
    assert sealer.seal(body(0)) == CELLS[0]


def test_a_stream_that_has_not_begun_goes_on_elsewhere() -> None:
    sealer, opener = CellSealer(key()), CellOpener(key())
    elsewhere = CellSealer(sealer.surrender()), CellOpener(opener.surrender())
    for number in range(70):
        cell = elsewhere[0].seal(body(number))
        assert cell == CELLS[number]
        assert elsewhere[1].open_untrusted(cell) == body(number)
    with pytest.raises(LocalProtocolError):
        sealer.seal(body(0))
    with pytest.raises(CryptoError):
        opener.open_untrusted(CELLS[0])


def test_a_stream_that_has_begun_stays() -> None:
    sealer, opener = CellSealer(key()), CellOpener(key())
    opener.open_untrusted(sealer.seal(body(0)))
    for half in (sealer, opener):
        with pytest.raises(LocalProtocolError):
            half.surrender()
    assert opener.open_untrusted(sealer.seal(body(1))) == body(1)


class Cells:
    """Cells side by side, as a carrier has them, and bodies in places of their own."""

    def __init__(self, octets: bytes = bytes(RUN * CELL_LEN)) -> None:
        self.octets = memoryview(bytearray(octets))
        starts = range(0, len(octets), CELL_LEN)
        self.cells = [self.octets[at : at + CELL_LEN] for at in starts]
        self.bodies = [self.octets[at : at + BODY_LEN] for at in starts]


@pytest.mark.parametrize("cuts", [[], [1, 64, 64, 130], [63, 128]])
def test_many_at_once_are_sealed_and_opened_as_one_by_one(cuts: list[int]) -> None:
    written = Cells(b"".join([body(at).ljust(CELL_LEN, b"\0") for at in range(RUN)]))
    sealed, opened = Cells(), Cells()
    sealer, opener = CellSealer(key()), CellOpener(key())
    runs = list(itertools.pairwise([0, *cuts, RUN]))
    for a, b in runs:
        sealer.seal_each(written.bodies[a:b], sealed.cells[a:b])
    assert sealed.octets == b"".join(CELLS)
    for a, b in runs:
        assert (
            opener.open_each_untrusted(sealed.cells[a:b], opened.bodies[a:b]) == b - a
        )
    assert opened.octets == written.octets


@pytest.mark.parametrize("wrong", [0, 5, 63, 64, RUN - 1])
def test_of_many_only_those_before_a_wrong_one_open(wrong: int) -> None:
    come = CELLS[:wrong] + FOREIGN[wrong : wrong + 1] + CELLS[wrong + 1 :]
    cells, opener = Cells(b"".join(come)).cells, CellOpener(key())
    bodies = Cells().bodies
    assert opener.open_each_untrusted(cells, bodies) == wrong
    assert bodies[:wrong] == [body(at) for at in range(wrong)]
    assert opener.open_each_untrusted(cells[wrong + 1 :], bodies[wrong + 1 :]) == 0
    assert_dead(opener, CELLS[wrong])


def test_a_sealer_that_was_stopped_among_many_seals_nothing_more() -> None:
    """Its count is past the rekey: the key would serve on and on."""
    written, sealed = Cells(), Cells()
    sealer = CellSealer(key())
    sealed.cells[9] = sealed.cells[9][:-1]  # of 64, so that its key is at its end
    with pytest.raises(ValueError, match="4096"):
        sealer.seal_each(written.bodies, sealed.cells)
    with pytest.raises(LocalProtocolError):
        sealer.seal(body(0))


def test_each_of_many_bodies_wants_a_cell() -> None:
    written, sealed = Cells(), Cells()
    for bodies, cells in ((RUN - 1, RUN), (RUN, RUN - 1), (128, 64)):
        with pytest.raises(LocalProtocolError):
            CellSealer(key()).seal_each(written.bodies[:bodies], sealed.cells[:cells])
