# SPDX-License-Identifier: MIT
"""The words of gossip: what nodes tell each other about the directory, in cells.

All segments of kind 4 of one direction are one row of octets, cut anywhere, and that
row is frames: kind u8, length u16 of what follows, then

    kind  name           octets
       1  head           order u64, hash 32, serial u64, sums 64 x 8
       2  want pairs     u64: bit n asks for the pairs of bucket n; not zero
       3  pairs          (node 8, serial u64) each, at most 1,024; none: that was all
       4  want boxes     node 8 each, 1 to 16
       5  box            a descriptor's signature and statement; none: we have it not
       6  want document  order u64, hash 32, copy 16, offset u32
                         order 0: no more of it, the rest are zeros
       7  document       order u64, hash 32, copy 16, total u32, offset u32, 1 to
                         4,008 octets

Integers are big-endian.  A node is 8 octets (ledger.py).  Order and hash are those of a
directory's roster (roster.py), the greater order the later; zeros: no directory.  A
copy says which octets they are: one roster goes about with more or fewer signatures,
and what is cut off goes on only in the same copy.

Invariant: a frame that no honest node writes raises CellError as soon as its length,
or its octets, are there; so a reader holds less than one frame, which is bounded.
What is asked when, and what an answer is worth, is gossip.py's.
"""

import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple, TypeAlias

from mesh.core.crypto import SIGNATURE_LEN
from mesh.core.descriptor import BOX_MAX_LEN
from mesh.errors import CellError

HASH_LEN: Final = 32
NODE_LEN: Final = 8
"""Octets that name a node: among 20,000 two alike once in 10**11 networks."""
COPY_LEN: Final = 16
BUCKETS: Final = 64
"""Parts of a list of serials that are compared apart: one changed serial of 10,000 is
found by asking for some 156 pairs, less than a cell, after half a kilobyte of sums."""
SUM_LEN: Final = 8
PAIRS_MAX: Final = 1024
"""Pairs of one frame: read in less than a millisecond."""
BOXES_MAX: Final = 16
"""Descriptors asked for at once: their octets lie in memory until they are looked at."""
CHUNK_MAX_LEN: Final = 4008
"""Octets of a document in one frame, which then fills a cell: no cell that came is lost
when a link ends, and other frames wait for one at most."""

_HEADER: Final = struct.Struct(">BH")
_HEAD: Final = struct.Struct(f">Q{HASH_LEN}sQ{BUCKETS * SUM_LEN}s")
_BUCKETS: Final = struct.Struct(">Q")
_PAIR: Final = struct.Struct(f">{NODE_LEN}sQ")
_WANT_DOCUMENT: Final = struct.Struct(f">Q{HASH_LEN}s{COPY_LEN}sI")
_DOCUMENT: Final = struct.Struct(f">Q{HASH_LEN}s{COPY_LEN}sII")
PAIR_LEN: Final = _PAIR.size


class Head(NamedTuple):
    """Which directory a node has; zeros: none."""

    order: int
    digest: bytes


NO_HEAD: Final = Head(0, bytes(HASH_LEN))


class HeadFrame(NamedTuple):
    """What a node has: its directory, its own serial, sums of all serials."""

    head: Head
    serial: int
    sums: bytes

    def encode(self) -> bytes:
        """Write the frame."""
        return _framed(1, _HEAD.pack(*self.head, self.serial, self.sums))


class WantPairs(NamedTuple):
    """Asks for the pairs of some buckets."""

    buckets: int

    def encode(self) -> bytes:
        """Write the frame."""
        return _framed(2, _BUCKETS.pack(self.buckets))


class Pairs(NamedTuple):
    """Nodes and the serials that the writer has of them, packed; none: the end."""

    octets: bytes

    def encode(self) -> bytes:
        """Write the frame."""
        return _framed(3, self.octets)

    def unpack(self) -> list[tuple[bytes, int]]:
        """Give them as (node, serial)."""
        return list(_PAIR.iter_unpack(self.octets))


class WantBoxes(NamedTuple):
    """Asks for the descriptors of some nodes; each is answered, in order."""

    nodes: tuple[bytes, ...]

    def encode(self) -> bytes:
        """Write the frame."""
        return _framed(4, b"".join(self.nodes))


class Box(NamedTuple):
    """One descriptor, signature first; empty where there is none."""

    octets: bytes

    def encode(self) -> bytes:
        """Write the frame."""
        return _framed(5, self.octets)


class WantDocument(NamedTuple):
    """Asks for a directory from an octet of one copy on; order 0: for no more."""

    head: Head
    copy: bytes
    offset: int

    def encode(self) -> bytes:
        """Write the frame."""
        return _framed(6, _WANT_DOCUMENT.pack(*self.head, self.copy, self.offset))


NO_DOCUMENT: Final = WantDocument(NO_HEAD, bytes(COPY_LEN), 0)


class Part(NamedTuple):
    """Some octets of a copy of a directory."""

    head: Head
    copy: bytes
    total: int
    offset: int
    octets: bytes

    def encode(self) -> bytes:
        """Write the frame."""
        where = _DOCUMENT.pack(*self.head, self.copy, self.total, self.offset)
        return _framed(7, where + self.octets)


Frame: TypeAlias = HeadFrame | WantPairs | Pairs | WantBoxes | Box | WantDocument | Part


def pair(node: bytes, serial: int) -> bytes:
    """Write one pair."""
    return _PAIR.pack(node, serial)


class FrameReader:
    """Frames out of octets that come in pieces; CellError for what is none."""

    __slots__ = ("_buffer", "_limit")

    def __init__(self, document_max_len: int) -> None:
        """`document_max_len` octets are the most that a document may have."""
        self._buffer = bytearray()
        self._limit = document_max_len

    def receive_data(self, octets: bytes | memoryview) -> None:
        """Take the next octets; call `next_frame` until it gives None."""
        self._buffer += octets

    def next_frame(self) -> Frame | None:
        """Give the next whole frame."""
        if len(self._buffer) < _HEADER.size:
            return None
        kind, length = _HEADER.unpack_from(self._buffer)
        lengths, read = _KINDS.get(kind, _NO_KIND)
        if length not in lengths:
            raise CellError("gossip of no known kind or length")
        end = _HEADER.size + length
        if len(self._buffer) < end:
            return None
        octets = bytes(self._buffer[_HEADER.size : end])
        del self._buffer[:end]
        frame = read(octets)
        if isinstance(frame, Part) and frame.total > self._limit:
            raise CellError("a directory larger than any")
        return frame


def _framed(kind: int, octets: bytes) -> bytes:
    return _HEADER.pack(kind, len(octets)) + octets


def _read_head_untrusted(octets: bytes) -> HeadFrame:
    order, digest, serial, sums = _HEAD.unpack(octets)
    head = Head(order, digest)
    if not order and (head != NO_HEAD or any(sums)):
        raise CellError("the head of no directory, and not empty")
    return HeadFrame(head, serial, sums)


def _read_want_pairs_untrusted(octets: bytes) -> WantPairs:
    (buckets,) = _BUCKETS.unpack(octets)
    if not buckets:
        raise CellError("a question for nothing")
    return WantPairs(buckets)


def _read_want_boxes_untrusted(octets: bytes) -> WantBoxes:
    ends = range(0, len(octets), NODE_LEN)
    return WantBoxes(tuple(octets[at : at + NODE_LEN] for at in ends))


def _read_box_untrusted(octets: bytes) -> Box:
    if 0 < len(octets) <= SIGNATURE_LEN:
        raise CellError("a signature of nothing")
    return Box(octets)


def _read_want_document_untrusted(octets: bytes) -> WantDocument:
    order, digest, copy, offset = _WANT_DOCUMENT.unpack(octets)
    want = WantDocument(Head(order, digest), copy, offset)
    if not order and want != NO_DOCUMENT:
        raise CellError("a question for no directory, and not empty")
    return want


def _read_part_untrusted(octets: bytes) -> Part:
    order, digest, copy, total, offset = _DOCUMENT.unpack_from(octets)
    part = Part(Head(order, digest), copy, total, offset, octets[_DOCUMENT.size :])
    if not order or offset + len(part.octets) > total:
        raise CellError("octets of no directory, or past its end")
    return part


# The lengths that each kind may have, and who reads it.
_KINDS: Final[Mapping[int, tuple[Sequence[int], Callable[[bytes], Frame]]]] = {
    1: (range(_HEAD.size, _HEAD.size + 1), _read_head_untrusted),
    2: (range(_BUCKETS.size, _BUCKETS.size + 1), _read_want_pairs_untrusted),
    3: (range(0, PAIRS_MAX * PAIR_LEN + 1, PAIR_LEN), Pairs),
    4: (
        range(NODE_LEN, BOXES_MAX * NODE_LEN + 1, NODE_LEN),
        _read_want_boxes_untrusted,
    ),
    5: (range(BOX_MAX_LEN + 1), _read_box_untrusted),
    6: (
        range(_WANT_DOCUMENT.size, _WANT_DOCUMENT.size + 1),
        _read_want_document_untrusted,
    ),
    7: (
        range(_DOCUMENT.size + 1, _DOCUMENT.size + CHUNK_MAX_LEN + 1),
        _read_part_untrusted,
    ),
}
_NO_KIND: Final[tuple[Sequence[int], Callable[[bytes], Frame]]] = ((), Box)
