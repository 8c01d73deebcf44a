# SPDX-License-Identifier: MIT
from hypothesis import given
from hypothesis import strategies as st

from mesh.core.outbox import Outbox


@given(
    st.lists(st.binary(min_size=1, max_size=30), min_size=1, max_size=6),
    st.lists(st.integers(0, 40), min_size=1, max_size=8),
)
def test_octets_leave_in_order_whatever_the_room(
    pieces: list[bytes], rooms: list[int]
) -> None:
    outbox, left, taken = Outbox(), list(pieces), b""
    for room in rooms:
        if left:
            outbox.put(left.pop(0))
        before = len(outbox)
        some = outbox.take(room)
        assert len(some) == min(room, before)
        assert len(outbox) == before - len(some)
        taken += some
    for piece in left:
        outbox.put(memoryview(piece))
    assert taken + outbox.take(1000) == b"".join(pieces)
    assert outbox.take(1000) == b""


def test_a_long_piece_leaves_in_parts_of_many() -> None:
    outbox = Outbox()
    for piece in (b"ab", b"", b"cdefgh", b"ij"):
        outbox.put(piece)
    assert [outbox.take(room) for room in (0, 1, 2, 2, 4, 9)] == [
        b"",
        b"a",
        b"bc",
        b"de",
        b"fghi",
        b"j",
    ]


@given(
    st.lists(st.binary(min_size=1, max_size=30), min_size=1, max_size=6),
    st.integers(0, 5),
    st.integers(1, 20),
    st.integers(1, 4),
)
def test_what_is_laid_out_is_what_would_be_taken(
    pieces: list[bytes], head: int, length: int, gap: int
) -> None:
    laid, taken = Outbox(), Outbox()
    for piece in pieces:
        for outbox in (laid, taken):
            outbox.put(memoryview(piece))
    for outbox in (laid, taken):
        outbox.take(head)
    count = len(taken) // length
    step = length + gap
    room = memoryview(bytearray(gap + count * step))
    if count:
        laid.lay(room, range(gap, len(room), step), length)
    expected = [bytes(gap) + taken.take(length) for _ in range(count)]
    assert room == b"".join(expected) + bytes(gap)
    assert len(laid) == len(taken)
    assert laid.take(1000) == taken.take(1000)


def test_octets_are_laid_out_across_pieces() -> None:
    outbox, room = Outbox(), memoryview(bytearray(9))
    for piece in (b"abcd", b"efg"):
        outbox.put(piece)
    outbox.lay(room, range(1, 9, 3), 2)
    assert bytes(room) == b"\0ab\0cd\0ef"
    assert outbox.take(9) == b"g"
    outbox.put(b"hi")
    outbox.lay(room, range(1), 2)
    assert bytes(room[:2]) == b"hi"
    assert not outbox


def test_what_is_cleared_does_not_leave() -> None:
    outbox = Outbox()
    outbox.put(b"abc")
    outbox.clear()
    assert not outbox
    assert outbox.take(3) == b""
