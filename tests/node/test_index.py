# SPDX-License-Identifier: MIT
"""Where records lie, when a row is finished, and what stays in memory."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.errors import LocalProtocolError
from mesh.node.index import HOT_OVERHEAD, Hot, Index, ref_of, slot_of
from tests.node.spooling import message


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1))
def test_a_reference_names_slot_and_generation(slot: int, generation: int) -> None:
    assert slot_of(ref_of(slot, generation)) == (slot, generation)


@given(st.lists(st.integers(1, 6), max_size=8), st.randoms(use_true_random=False))
def test_a_row_is_finished_with_its_last_record(
    sizes: list[int], chance: object
) -> None:
    index, slots, living = Index(), 0, dict[int, int]()
    for row, size in enumerate(sizes, 1):
        index.add(row, [(slots + at, at) for at in range(size)])
        for at in range(size):
            assert index.place(slots + at) == (row, at)
            living[slots + at] = row
        slots += size
    assert index.waiting == slots
    order = list(living)
    chance.shuffle(order)  # type: ignore[attr-defined]
    for slot in order:
        row = living.pop(slot)
        left = row in living.values()
        assert index.drop(slot) == (None if left else row)
    assert index.waiting == 0
    assert not index._shared


def test_a_row_with_damage_is_never_finished() -> None:
    index = Index()
    index.add(3, [(8, 1)])
    index.keep(3)
    assert index.drop(8) is None
    index.add(4, [])


def test_the_oldest_make_room() -> None:
    hot = Hot(3 * (HOT_OVERHEAD + 100))
    refs = [ref_of(n, 1) for n in range(5)]
    for n, ref in enumerate(refs):
        hot.add(ref, message(n, content=bytes(100)))
    assert [hot.get(ref) is None for ref in refs] == [True, True, False, False, False]
    hot.drop(refs[3])
    hot.drop(refs[3])
    hot.add(refs[0], message(0, content=bytes(100)))
    assert [hot.get(ref) is None for ref in refs] == [False, True, False, True, False]
    with pytest.raises(LocalProtocolError):
        hot.add(refs[0], message(0))
    hot.add(refs[1], message(1, content=bytes(10_000)))
    assert all(hot.get(ref) is None for ref in refs)
