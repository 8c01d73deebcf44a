# SPDX-License-Identifier: MIT
"""Slots: taken once, freed when their renewal is on the disk, re-wrapped unharmed."""

import pytest

from mesh.core.slot import (
    EMPTY,
    SLOT_LEN,
    ArenaKeys,
    Tombstone,
    open_keys_untrusted,
    pack_tombstone,
)
from mesh.errors import CryptoError, LocalProtocolError
from mesh.node.arena import PAGE_LEN, PAGE_SLOTS, Arena, State, open_either, read_slot
from tests.harness import FixedEntropy

SLOTS = 40 * PAGE_SLOTS
MARK = Tombstone(b"o" * 16, b"i" * 16, 77)


@pytest.fixture
def arena() -> Arena:
    entropy = FixedEntropy("arena")
    made = Arena(
        entropy.key(), ArenaKeys(0, 0, 0, entropy.key(), None), bytearray(), entropy
    )
    made.grow(SLOTS)
    made.end_flush(made.begin_flush())
    made.adopt(made.grown_keys(0))
    return made


def test_each_slot_is_taken_once(arena: Arena) -> None:
    taken = [arena.take() for _ in range(SLOTS)]
    assert sorted(number for number, _, _ in taken) == list(range(SLOTS))
    assert arena.free == 0
    assert len({key.unsafe_bytes() for _, _, key in taken}) == SLOTS
    with pytest.raises(LocalProtocolError):
        arena.take()


def test_a_group_comes_from_few_pages_in_no_order(arena: Arena) -> None:
    numbers = [arena.take()[0] for _ in range(2 * PAGE_SLOTS)]
    assert len({number // PAGE_SLOTS for number in numbers}) == 2
    for page in (numbers[:PAGE_SLOTS], numbers[PAGE_SLOTS:]):
        assert page not in (sorted(page), sorted(page, reverse=True))


def test_taking_writes_nothing(arena: Arena) -> None:
    before = bytes(arena.image)
    number, generation, _ = arena.take()
    assert not arena.dirty
    assert arena.image == before
    assert arena.is_held(number, generation)
    assert not arena.is_held(number, generation + 1)
    assert not arena.is_held(SLOTS, 1)


def test_a_renewed_slot_is_free_when_it_is_on_the_disk(arena: Arena) -> None:
    number, generation, key = arena.take()
    free = arena.free
    arena.renew(number)
    assert not arena.is_held(number, generation)
    assert arena.states[number] == State.SPENT
    flush = arena.begin_flush()
    assert arena.key(number) != key
    assert arena.free == free
    arena.renew(arena.take()[0])
    arena.end_flush(flush)
    # The second renewal was not in that flush.
    assert arena.free == free
    assert arena.count(State.SPENT) == 1
    assert arena.generations[number] == generation + 1


def test_what_is_renewed_some_at_a_time_is_free_with_its_own_flush(
    arena: Arena,
) -> None:
    """Before its new box is made nobody may have it: its key is the old one."""
    numbers = [arena.take()[0] for _ in range(5)]
    free = arena.free
    for number in numbers:
        arena.renew(number)
    assert arena.seal(2)
    first = arena.begin_flush()
    assert first.spent == numbers  # the first two, and the rest
    late = arena.take()[0]
    arena.renew(late)
    assert not arena.seal(9)
    arena.end_flush(first)
    assert arena.free == free + 4
    assert arena.dirty
    arena.end_flush(arena.begin_flush())
    assert arena.free == free + 5


def test_a_tombstone_that_nobody_needs_any_more_is_never_made(arena: Arena) -> None:
    number, generation, _ = arena.take()
    arena.renew(number, pack_tombstone(MARK))
    arena.renew(number)
    flush = arena.begin_flush()
    assert flush.spent == [number]
    slot = bytes(arena.image[number * SLOT_LEN : (number + 1) * SLOT_LEN])
    found = read_slot(arena.keys, number, slot)
    assert found is not None
    assert found[0] == generation + 2
    assert found[2] == EMPTY


def test_a_tombstone_is_not_free(arena: Arena) -> None:
    number = arena.take()[0]
    arena.renew(number, b"\1" * 48)
    arena.end_flush(arena.begin_flush())
    assert arena.states[number] == State.TOMBSTONE
    assert arena.free == SLOTS - 1
    arena.renew(number)
    arena.end_flush(arena.begin_flush())
    assert arena.free == SLOTS


def test_near_pages_are_written_in_one_piece(arena: Arena) -> None:
    for page in (0, 3, 11, 20, 39):
        arena.renew(page * PAGE_SLOTS)
    pieces = arena.begin_flush().pieces
    assert [(at // PAGE_LEN, len(data) // PAGE_LEN) for at, data in pieces] == [
        (0, 12),
        (20, 1),
        (39, 1),
    ]
    for at, data in pieces:
        assert arena.image[at : at + len(data)] == data
    assert not arena.dirty
    assert arena.begin_flush().pieces == []


def test_claims(arena: Arena) -> None:
    for number, times in ((4, 2), (6, 1), (8, 1)):
        for _ in range(times):
            arena.renew(number, pack_tombstone(MARK) if number == 6 else EMPTY)
    arena.begin_flush()
    arena.image[7 * SLOT_LEN] ^= 1
    key = arena.key(1)
    entropy = FixedEntropy("claims")
    again = Arena(entropy.key(), arena.keys, arena.image, entropy)
    assert again.claim(1, 1) == (State.HELD, key, False)
    assert again.claim(1, 1) == (State.DAMAGED, None, False)  # a second row for it
    assert again.claim(4, 2) == (State.SPENT, None, False)
    assert again.claim(4, 3) == (State.HELD, arena.key(4), False)  # looked at before
    assert again.claim(5, 2) == (State.DAMAGED, None, False)  # younger than its slot
    assert again.claim(6, 1) == (State.SPENT, None, False)
    assert again.claim(6, 2) == (State.DAMAGED, None, False)
    assert again.claim(7, 1) == (State.DAMAGED, None, False)
    assert again.claim(8, 1) == (State.SPENT, None, False)
    assert again.claim(SLOTS, 1) == (State.DAMAGED, None, False)
    assert again.tombstones == [(6, MARK)]
    # Nothing of it may be given out before each row has claimed what is its own.
    assert again.free == 0
    again.settle(SLOTS - 1)
    assert (again.is_settled, again.free) == (False, SLOTS - 5)
    again.settle(SLOTS)
    assert (again.is_settled, again.free) == (True, SLOTS - 4)


def test_what_was_given_out_is_claimed_by_no_row(arena: Arena) -> None:
    entropy = FixedEntropy("claims")
    again = Arena(entropy.key(), arena.keys, arena.image, entropy)
    number, generation = 9, 1
    assert again.claim(number, generation)[0] == State.HELD
    again.renew(number)
    again.end_flush(again.begin_flush())
    assert again.free == 1
    # Only damage to a row could name a life of the slot that begins now.
    assert again.claim(number, generation + 1) == (State.DAMAGED, None, False)
    assert again.take()[:2] == (number, generation + 1)
    assert again.claim(number, generation + 1) == (State.DAMAGED, None, False)


def test_a_rewrap_keeps_every_key_and_changes_every_box(arena: Arena) -> None:
    keys = [arena.key(number) for number in range(SLOTS)]
    before = bytes(arena.image)
    old = arena.keys.current.copy()
    arena.states[9] = State.DAMAGED
    arena.adopt(arena.fresh_keys(10))
    with pytest.raises(LocalProtocolError):
        arena.fresh_keys(11)
    assert not arena.rewrap(1)
    # Half-way, each slot opens under one key or the other.
    assert [arena.key(number) for number in range(SLOTS)] == keys
    arena.renew(100)
    arena.renew(SLOTS - 1, pack_tombstone(MARK))
    assert not arena.rewrap(30)
    assert arena.rewrap(30)
    arena.adopt(arena.bare_keys(20))
    for number in range(SLOTS):
        slot = bytes(arena.image[number * 128 : number * 128 + 128])
        assert (slot == before[number * 128 : number * 128 + 128]) == (number == 9)
        with pytest.raises(CryptoError):
            open_either(ArenaKeys(0, 0, 0, old, None), number, slot) if (
                number != 9
            ) else arena.key(9)
        if number not in (9, 100, SLOTS - 1):
            assert arena.key(number) == keys[number]
    assert len(arena.begin_flush().pieces) == 1


def test_a_second_rewrap_begins_at_the_first_page(arena: Arena) -> None:
    for time in (1, 2):
        arena.adopt(arena.fresh_keys(time))
        assert not arena.rewrap(39)
        assert arena.rewrap(1)
        arena.adopt(arena.bare_keys(time))


def test_grown_slots_are_given_out_when_they_are_counted(arena: Arena) -> None:
    arena.grow(PAGE_SLOTS)
    arena.end_flush(arena.begin_flush())
    assert (arena.free, arena.capacity) == (SLOTS, SLOTS)
    arena.adopt(arena.grown_keys(5))
    assert (arena.free, arena.capacity) == (SLOTS + PAGE_SLOTS, SLOTS + PAGE_SLOTS)


def test_keys_go_to_their_file_sealed(arena: Arena) -> None:
    keys = arena.timed_keys(99)
    assert keys.sequence == arena.keys.sequence + 1
    assert open_keys_untrusted(arena._spool_key, arena.box(keys)) == keys
    assert arena.box(keys) != arena.box(keys)
