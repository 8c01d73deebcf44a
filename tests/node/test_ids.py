# SPDX-License-Identifier: MIT
"""Known ids: as long as one record or tombstone stands for them, and no longer."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.core.record import NO_ID
from mesh.core.slot import Tombstone
from mesh.node.ids import EXPIRY_SECONDS, Ids

A, B = b"a" * 16, b"b" * 16
ONE, TWO = b"1" * 16, b"2" * 16


def test_a_record_without_an_id_is_not_remembered() -> None:
    ids = Ids()
    ids.add(1, A, NO_ID)
    assert not ids.knows(A, NO_ID)
    assert ids.bury(1, 0) is None
    assert ids.count(A) == 0


def test_peers_do_not_share_ids() -> None:
    ids = Ids()
    ids.add(1, A, ONE)
    assert ids.knows(A, ONE)
    assert not ids.knows(B, ONE)
    assert (ids.count(A), ids.count(B)) == (1, 0)


def test_done_gives_the_tombstones_only() -> None:
    ids = Ids()
    ids.add(1, A, ONE)
    ids.add(2, A, ONE)
    assert ids.count(A) == 1
    assert ids.bury(1, 100) == Tombstone(A, ONE, 100 + EXPIRY_SECONDS)
    assert ids.done(A, ONE) == ([1], [2])
    assert not ids.knows(A, ONE)
    # The other record is forgotten later, and leaves nothing.
    assert ids.bury(2, 100) is None
    assert ids.done(A, ONE) == ([], [])
    assert ids.count(A) == 0


def test_tombstones_expire_in_their_order() -> None:
    ids = Ids()
    ids.add_tombstone(5, Tombstone(A, ONE, 300))
    ids.add_tombstone(6, Tombstone(A, ONE, 100))
    ids.add_tombstone(7, Tombstone(B, TWO, 200))
    ids.sort()
    assert ids.expired(99) == []
    assert ids.expired(200) == [6, 7]
    assert ids.knows(A, ONE)
    assert not ids.knows(B, TWO)
    assert ids.expired(300) == [5]
    assert not ids.knows(A, ONE)
    assert ids.count(A) == ids.count(B) == 0


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5)), max_size=60))
def test_nothing_is_left_when_all_are_gone(steps: list[tuple[int, int]]) -> None:
    ids, living, slot = Ids(), list[int](), 0
    for what, which in steps:
        ident = bytes([which + 1]) * 16
        if what < 2:
            slot += 1
            ids.add(slot, A, ident)
            living.append(slot)
        elif what == 2 and living:
            ids.bury(living.pop(which % len(living)), slot)
        else:
            ids.done(A, ident)
            assert not ids.knows(A, ident)
    for each in living:
        ids.bury(each, slot)
    ids.expired(slot + EXPIRY_SECONDS)
    assert not ids._slots
    assert not any(ids._ids)
    assert not ids._expiries
    assert not ids._peers


def test_two_ids_of_one_hash_are_two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mesh.node.ids.hash", lambda _: 7, raising=False)
    ids = Ids()
    ids.add(1, A, ONE)
    ids.add(2, A, TWO)
    ids.add(3, B, ONE)
    assert (ids.count(A), ids.count(B)) == (2, 1)
    assert not ids.knows(B, TWO)
    assert ids.done(A, ONE) == ([], [1])
    assert not ids.knows(A, ONE)
    assert ids.knows(A, TWO)
    assert ids.knows(B, ONE)
    assert ids.bury(3, 0) == Tombstone(B, ONE, EXPIRY_SECONDS)
    assert ids.expired(EXPIRY_SECONDS) == [3]
    assert (ids.count(A), ids.count(B)) == (1, 0)
    assert ids.done(A, TWO) == ([], [2])
    assert not ids._slots
