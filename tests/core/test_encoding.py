# SPDX-License-Identifier: MIT
"""One value, one row of octets: nothing else is read."""

from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.core.encoding import DEPTH_MAX, decode_untrusted, encode
from mesh.errors import EncodingError, LocalProtocolError

LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.binary(max_size=40)
    | st.text(max_size=40)
)
VALUES = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=5), max_leaves=20)


@given(VALUES)
def test_round_trip(value: Any) -> None:
    assert decode_untrusted(encode(value), max_len=10_000) == value


@given(st.binary(max_size=60))
def test_garbage_parses_or_raises_its_own_error(data: bytes) -> None:
    try:
        value = decode_untrusted(data, max_len=60)
    except EncodingError:
        return
    assert encode(value) == data


@given(VALUES, st.data())
def test_a_truncated_or_lengthened_statement_is_refused(value: Any, data: Any) -> None:
    octets = encode(value)
    cut = data.draw(st.integers(0, len(octets) - 1))
    for wrong in (octets[:cut], octets + b"\0"):
        with pytest.raises(EncodingError):
            decode_untrusted(wrong, max_len=10_000)


@pytest.mark.parametrize(
    "octets",
    [
        b"\xcc\x05",  # 5 in two octets
        b"\xd9\x01a",  # a short string with a long length
        b"\xdc\x00\x01\xc0",  # an array with a long length
        b"\x81\xc0\xc0",  # a map
        b"\x80",  # an empty map
        b"\xcb" + bytes(8),  # a float
        b"\xd4\x01\x00",  # an extension
        b"\xc7\x00\x05",  # an empty one
        b"\x91\xc7\x00\x05",
        b"\xa1\xff",  # not UTF-8
        b"\x91" * (DEPTH_MAX + 1) + b"\xc0",
        b"\x91" * 5000 + b"\xc0",
        b"\xdd\xff\xff\xff\xff",
    ],
)
def test_other_spellings_and_bombs_are_refused(octets: bytes) -> None:
    with pytest.raises(EncodingError):
        decode_untrusted(octets, max_len=100_000)


def test_length_is_bounded() -> None:
    with pytest.raises(EncodingError):
        decode_untrusted(encode(b"abc"), max_len=4)


@pytest.mark.parametrize("value", [1.0, {}, {1: 2}, [object()], 2**64, "\ud800"])
def test_what_has_no_form_is_our_own_mistake(value: Any) -> None:
    with pytest.raises(LocalProtocolError):
        encode(value)


def test_tuples_and_lists_are_one() -> None:
    value: Any = (1, (b"a", None))
    assert (
        encode(value) == encode([1, [b"a", None]]) == msgpack.packb([1, [b"a", None]])
    )
