# SPDX-License-Identifier: MIT
"""Calm: no collection during big work, whoever else is at it, and all as before after."""

import gc
from collections.abc import Iterator

import pytest

from mesh.node.calm import calm


@pytest.fixture(autouse=True)
def thaw() -> Iterator[None]:
    yield
    gc.unfreeze()


def test_no_collection_meanwhile() -> None:
    with calm():
        assert not gc.isenabled()
    assert gc.isenabled()


def test_the_last_one_ends_it() -> None:
    first, second = calm(), calm()
    with first:
        with second:
            assert not gc.isenabled()
        assert not gc.isenabled()
    assert gc.isenabled()


def test_what_it_made_is_visited_no_more() -> None:
    before = gc.get_freeze_count()
    with calm():
        made = [[number] for number in range(1000)]
        assert gc.get_freeze_count() == before
    assert gc.get_freeze_count() >= before + len(made)


def test_work_that_fails_ends_it_too() -> None:
    with pytest.raises(ZeroDivisionError), calm():
        raise ZeroDivisionError
    assert gc.isenabled()
