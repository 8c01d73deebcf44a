# SPDX-License-Identifier: MIT
"""Bodies: exact length, one reading, nothing accepted that no honest peer seals."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.core.cell import (
    BODY_LEN,
    HEADER,
    HEADER_LEN,
    PADDING,
    SEGMENTS_MAX,
    STREAMS_MAX,
    BodyWriter,
    Kind,
    parse_untrusted,
)
from mesh.errors import CellError

SEGMENTS = st.lists(
    st.one_of(
        st.tuples(
            st.sampled_from([Kind.COMMANDS, Kind.REPLIES]),
            st.integers(0, STREAMS_MAX - 1),
            st.binary(min_size=1, max_size=900),
        ),
        st.tuples(
            st.just(Kind.CREDIT),
            st.integers(0, STREAMS_MAX - 1),
            st.binary(min_size=4, max_size=4),
        ),
        st.tuples(st.just(Kind.GOSSIP), st.just(0), st.binary(min_size=1, max_size=9)),
        st.tuples(
            st.just(Kind.MOVE),
            st.just(0),
            st.sampled_from([9, 16]).flatmap(
                lambda length: st.binary(min_size=length, max_size=length)
            ),
        ),
        st.tuples(st.just(Kind.CLOSE), st.just(0), st.just(b"")),
    ),
    max_size=4,
)


def write(segments: Any) -> bytes:
    writer = BodyWriter()
    for kind, stream, octets in segments:
        writer.add(kind, stream, octets)
    return writer.finish()


@given(SEGMENTS)
def test_round_trip_at_one_length(segments: Any) -> None:
    body = write(segments)
    assert len(body) == BODY_LEN
    read = [(s.kind, s.stream, bytes(s.octets)) for s in parse_untrusted(body)]
    assert read == segments


@given(st.binary(max_size=64))
def test_garbage_parses_or_raises_its_own_error(start: bytes) -> None:
    try:
        segments = parse_untrusted(start.ljust(BODY_LEN, b"\0"))
    except CellError:
        return
    assert write([(s.kind, s.stream, bytes(s.octets)) for s in segments]) == (
        start.ljust(BODY_LEN, b"\0")
    )


def test_padding_is_no_segments() -> None:
    assert parse_untrusted(PADDING) == []
    assert BodyWriter().empty
    assert BodyWriter().finish() == PADDING


def test_a_segment_may_fill_the_body() -> None:
    octets = b"x" * (BODY_LEN - HEADER_LEN)
    writer = BodyWriter()
    assert writer.space == len(octets)
    writer.add(Kind.COMMANDS, 3, octets)
    assert writer.space < 0
    assert bytes(parse_untrusted(writer.finish())[0].octets) == octets


@pytest.mark.parametrize(
    "header",
    [
        HEADER.pack(Kind.COMMANDS, STREAMS_MAX, 1),
        HEADER.pack(Kind.COMMANDS, 0, 0),
        HEADER.pack(Kind.REPLIES, 0, 0),
        HEADER.pack(Kind.COMMANDS, 0, BODY_LEN - HEADER_LEN + 1),
        HEADER.pack(Kind.CREDIT, 0, 3),
        HEADER.pack(Kind.CREDIT, 0, 5),
        HEADER.pack(Kind.CLOSE, 0, 1),
        HEADER.pack(Kind.CLOSE, 1, 0),
        HEADER.pack(Kind.GOSSIP, 0, 0),
        HEADER.pack(Kind.GOSSIP, 1, 1),
        HEADER.pack(Kind.GOSSIP, 0, BODY_LEN - HEADER_LEN + 1),
        HEADER.pack(Kind.MOVE, 0, 0),
        HEADER.pack(Kind.MOVE, 0, 8),
        HEADER.pack(Kind.MOVE, 0, 10),
        HEADER.pack(Kind.MOVE, 0, 15),
        HEADER.pack(Kind.MOVE, 0, 17),
        HEADER.pack(Kind.MOVE, 1, 9),
        HEADER.pack(Kind.MOVE, 1, 16),
        HEADER.pack(7, 0, 1),
        HEADER.pack(0, 0, 1),
        HEADER.pack(0, 1, 0),
    ],
)
def test_impossible_segments_are_refused(header: bytes) -> None:
    with pytest.raises(CellError):
        parse_untrusted(header.ljust(BODY_LEN, b"\0"))


def test_octets_behind_the_end_are_refused() -> None:
    body = bytearray(write([(Kind.REPLIES, 1, b"250 ok")]))
    body[-1] = 1
    with pytest.raises(CellError):
        parse_untrusted(bytes(body))


def test_a_segment_may_not_pass_the_end() -> None:
    first = write([(Kind.COMMANDS, 0, b"x" * 4000)])[: HEADER_LEN + 4000]
    with pytest.raises(CellError):
        parse_untrusted(
            (first + HEADER.pack(Kind.COMMANDS, 0, 71)).ljust(BODY_LEN, b"\0")
        )


def test_a_body_has_one_length() -> None:
    for length in (0, BODY_LEN - 1, BODY_LEN + 1):
        with pytest.raises(CellError):
            parse_untrusted(bytes(length))


def test_a_body_has_no_more_segments_than_streams_need() -> None:
    each = [
        segment
        for stream in range(STREAMS_MAX)
        for segment in (
            (Kind.COMMANDS, stream, b"x"),
            (Kind.REPLIES, stream, b"x"),
            (Kind.CREDIT, stream, b"1234"),
        )
    ]
    whole = [*each, (Kind.GOSSIP, 0, b"x")]
    assert len(parse_untrusted(write(whole))) == SEGMENTS_MAX
    with pytest.raises(CellError):
        parse_untrusted(write([*whole, (Kind.COMMANDS, 0, b"x")]))
