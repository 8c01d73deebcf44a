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


def test_what_is_cleared_does_not_leave() -> None:
    outbox = Outbox()
    outbox.put(b"abc")
    outbox.clear()
    assert not outbox
    assert outbox.take(3) == b""
