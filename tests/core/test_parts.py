# SPDX-License-Identifier: MIT
"""Parts: one spelling for a list, and nothing else is one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.core.parts import join, split_untrusted
from mesh.errors import EncodingError

lists = st.lists(st.binary(max_size=20), max_size=8)


@given(lists)
def test_a_list_comes_back(parts: list[bytes]) -> None:
    assert split_untrusted(join(parts), max_parts=len(parts)) == parts


@given(st.binary(max_size=60))
def test_any_octets_are_one_list_or_none(octets: bytes) -> None:
    try:
        parts = split_untrusted(octets, max_parts=60)
    except EncodingError:
        return
    assert join(parts) == octets


@given(lists.filter(bool))
def test_cut_off_is_no_list(parts: list[bytes]) -> None:
    octets = join(parts)
    whole = {len(join(parts[:count])) for count in range(len(parts) + 1)}
    for length in set(range(len(octets))) - whole:
        with pytest.raises(EncodingError):
            split_untrusted(octets[:length], max_parts=8)


def test_the_layout() -> None:
    assert join([b"ab", b""]) == b"\0\0\0\2ab\0\0\0\0"


def test_more_parts_than_allowed() -> None:
    split_untrusted(join([b""] * 3), max_parts=3)
    with pytest.raises(EncodingError):
        split_untrusted(join([b""] * 4), max_parts=3)


def test_a_length_that_nobody_has() -> None:
    with pytest.raises(EncodingError):
        split_untrusted(b"\xff\xff\xff\xff", max_parts=3)
