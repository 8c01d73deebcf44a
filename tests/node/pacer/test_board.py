# SPDX-License-Identifier: MIT
"""What the pacer shows: every instant's link once, or the word that it may be any."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.node.pacer.board import LENGTH, LOG_SURE, Board
from mesh.node.pacer.ring import _two_turns, fence


@given(st.lists(st.integers(0, LOG_SURE + 2), max_size=20))
def test_each_look_gives_what_was_noted_since_the_last(bursts: list[int]) -> None:
    memory = bytearray(LENGTH + 8)
    pacer, main = Board(memory, 8), Board(memory, 8)
    main.begin()
    number = 0
    for burst in bursts:
        noted = list(range(number, number + burst))
        number += burst
        for each in noted:
            pacer.note(each)
        assert main.looked() == (noted if burst <= LOG_SURE else None)
    assert not any(memory[:8])


def test_the_next_instant_is_seen() -> None:
    memory = bytearray(LENGTH)
    pacer, main = Board(memory), Board(memory)
    main.begin()
    assert main.due == math.inf
    pacer.show(1234.5678)
    assert main.due == 1234.5678


def test_what_an_earlier_pacer_showed_is_forgotten() -> None:
    memory = bytearray(LENGTH)
    main = Board(memory)
    for _ in range(2):
        pacer = Board(memory)
        main.begin()
        assert main.looked() == []
        pacer.note(7)
        pacer.show(1.0)
        assert main.looked() == [7]


@pytest.mark.parametrize("order", [fence, _two_turns])
def test_a_barrier_is_passed_again_and_again(order: object) -> None:
    for _ in range(3):
        order()  # type: ignore[operator]
