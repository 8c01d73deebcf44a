# SPDX-License-Identifier: MIT
"""Frames: any cut of octets gives the same ones, and nothing else is one."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.core.descriptor import BOX_MAX_LEN
from mesh.core.frames import (
    BOXES_MAX,
    BUCKETS,
    CHUNK_MAX_LEN,
    NO_DOCUMENT,
    NO_HEAD,
    PAIRS_MAX,
    Box,
    Frame,
    FrameReader,
    Head,
    HeadFrame,
    Pairs,
    Part,
    WantBoxes,
    WantDocument,
    WantPairs,
    pair,
)
from mesh.errors import CellError

LIMIT = 1_000_000
U64 = st.integers(0, 2**64 - 1)
HEADS = st.builds(Head, st.integers(1, 2**64 - 1), st.binary(min_size=32, max_size=32))
NODES = st.binary(min_size=8, max_size=8)
COPIES = st.binary(min_size=16, max_size=16)


@st.composite
def parts(draw: st.DrawFn) -> Part:
    octets = draw(st.binary(min_size=1, max_size=50))
    offset = draw(st.integers(0, LIMIT - len(octets)))
    total = draw(st.integers(offset + len(octets), LIMIT))
    return Part(draw(HEADS), draw(COPIES), total, offset, octets)


FRAMES = st.one_of(
    st.builds(HeadFrame, HEADS, U64, st.binary(min_size=512, max_size=512)),
    st.builds(HeadFrame, st.just(NO_HEAD), U64, st.just(bytes(512))),
    st.builds(WantPairs, st.integers(1, 2**BUCKETS - 1)),
    st.builds(
        lambda pairs: Pairs(b"".join(pair(*each) for each in pairs)),
        st.lists(st.tuples(NODES, U64), max_size=4),
    ),
    st.builds(
        lambda nodes: WantBoxes(tuple(nodes)),
        st.lists(NODES, min_size=1, max_size=BOXES_MAX),
    ),
    st.builds(Box, st.one_of(st.just(b""), st.binary(min_size=65, max_size=99))),
    st.builds(WantDocument, HEADS, COPIES, st.integers(0, 2**32 - 1)),
    st.just(NO_DOCUMENT),
    parts(),
)


def read(reader: FrameReader, octets: bytes) -> list[Frame]:
    reader.receive_data(octets)
    found = []
    while (frame := reader.next_frame()) is not None:
        found.append(frame)
    return found


@given(st.lists(FRAMES, max_size=5), st.data())
def test_any_cut_gives_the_same_frames(
    frames: list[Frame], data: st.DataObject
) -> None:
    octets = b"".join(frame.encode() for frame in frames)
    cuts = data.draw(st.lists(st.integers(0, len(octets)), max_size=8))
    reader, found = FrameReader(LIMIT), []
    for start, end in zip(
        [0, *sorted(cuts)], [*sorted(cuts), len(octets)], strict=True
    ):
        found += read(reader, octets[start:end])
    assert found == frames


@given(st.binary(max_size=200))
def test_garbage_is_frames_or_raises_its_own_error(octets: bytes) -> None:
    reader = FrameReader(LIMIT)
    try:
        found = read(reader, octets)
    except CellError:
        return
    written = b"".join(frame.encode() for frame in found)
    assert octets.startswith(written)


def framed(kind: int, octets: bytes) -> bytes:
    return struct.pack(">BH", kind, len(octets)) + octets


HEAD = struct.pack(">Q", 1) + b"h" * 32
ASK = HEAD + b"c" * 16


@pytest.mark.parametrize(
    "octets",
    [
        framed(0, b""),
        framed(8, b""),
        framed(1, bytes(40 + 8 + 512 - 1)),
        framed(1, bytes(40 + 8 + 512 + 1)),
        framed(1, bytes(8) + b"h" * 32 + bytes(520)),
        framed(1, bytes(559) + b"\1"),
        framed(2, bytes(7)),
        framed(2, bytes(8)),
        framed(3, bytes(15)),
        framed(3, bytes(16 * (PAIRS_MAX + 1))),
        framed(4, b""),
        framed(4, bytes(9)),
        framed(4, bytes(8 * (BOXES_MAX + 1))),
        framed(5, bytes(64)),
        framed(5, bytes(BOX_MAX_LEN + 1)),
        framed(6, ASK),
        framed(6, bytes(59) + b"\1"),
        framed(6, bytes(8) + b"h" * 32 + bytes(20)),
        framed(7, ASK + struct.pack(">II", 10, 0)),
        framed(7, ASK + struct.pack(">II", 10, 10) + b"x"),
        framed(7, ASK + struct.pack(">II", 10, 2**32 - 1) + b"x"),
        framed(7, ASK + struct.pack(">II", LIMIT + 1, 0) + b"x"),
        framed(7, bytes(56) + struct.pack(">II", 10, 0) + b"x"),
        framed(7, ASK + struct.pack(">II", LIMIT, 0) + b"x" * (CHUNK_MAX_LEN + 1)),
    ],
)
def test_what_no_honest_node_writes_is_refused(octets: bytes) -> None:
    with pytest.raises(CellError):
        read(FrameReader(LIMIT), octets)


def test_a_wrong_length_is_refused_before_its_octets_are_there() -> None:
    with pytest.raises(CellError):
        read(FrameReader(LIMIT), struct.pack(">BH", 4, 60_000))


def test_the_largest_of_each_is_read() -> None:
    for frame in (
        Pairs(bytes(16 * PAIRS_MAX)),
        Box(bytes(BOX_MAX_LEN)),
        Part(
            Head(1, bytes(32)),
            bytes(16),
            LIMIT,
            LIMIT - CHUNK_MAX_LEN,
            b"x" * CHUNK_MAX_LEN,
        ),
    ):
        assert read(FrameReader(LIMIT), frame.encode()) == [frame]


def test_pairs_are_read_back() -> None:
    pairs = [(b"12345678", 2**63), (b"abcdefgh", 0)]
    assert Pairs(b"".join(pair(*each) for each in pairs)).unpack() == pairs
