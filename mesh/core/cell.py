# SPDX-License-Identifier: MIT
"""Fixed-size cells: all that an observer of a link ever sees.

A cell is CELL_LEN = 4096 octets on the wire, whatever it carries:

    offset  length  field
         0    4080  body   segments, then zeros
      4080      16  tag    ChaCha20-Poly1305 over the body (cellstream.py)

A segment inside a body:

    offset  length  field
         0       1  kind     0 no more segments; 1 commands and message octets of my
                             stream; 2 replies on your stream; 3 credit for your
                             stream; 4 gossip (frames.py); 5 the link moves to another
                             connection (strand.py); 6 the connection closes
         1       2  stream   0 .. 31; 0 for kinds 4 to 6
         3       2  length   of what follows: 1 or more; 4 for credit, 9 or 16 for a move,
                             0 for a close
         5  length  octets   for credit: how many more octets may come, u32

Integers are big-endian.  A body of zeros is padding.  After kind 0 all is zeros: a
peer that leaves octets there is refused, so that a body has one reading only.  So is
one with more than SEGMENTS_MAX segments, so that no body takes long to read.

Invariant: a body of zeros is sealed by the same work into the same number of octets.
Nothing here looks at a clock or holds a key.  See `mesh help protocol`.
"""

import enum
import struct
from collections.abc import Mapping
from typing import Final, NamedTuple

from mesh.core.crypto import TAG_LEN
from mesh.errors import CellError

CELL_LEN: Final = 4096
"""Octets on the wire: a page, and three segments of 1,500-octet frames."""
BODY_LEN: Final = CELL_LEN - TAG_LEN
HEADER: Final = struct.Struct(">BHH")
HEADER_LEN: Final = HEADER.size
CREDIT: Final = struct.Struct(">I")
STREAMS_MAX: Final = 32
"""Streams a direction: what one link may have in flight, and its memory, are bounded."""
SEGMENTS_MAX: Final = 3 * STREAMS_MAX + 1
"""Segments a body: commands, replies and credit of each stream, and gossip.
Hundreds of one octet each would take milliseconds, in which no other link's cell leaves."""
PADDING: Final = bytes(BODY_LEN)
CLOSE_BODY: Final = HEADER.pack(6, 0, 0).ljust(BODY_LEN, b"\0")
"""The body of a link's last cell: kind 6 and nothing else."""


class Kind(enum.IntEnum):
    """What a segment carries."""

    END = 0
    COMMANDS = 1
    REPLIES = 2
    CREDIT = 3
    GOSSIP = 4
    MOVE = 5
    CLOSE = 6


class Segment(NamedTuple):
    """One segment of a body; `octets` is a view into it."""

    kind: int
    stream: int
    octets: memoryview


_WORDS: Final = range(1, BODY_LEN - HEADER_LEN + 1)
_LAWS: Final[Mapping[int, tuple[range, int]]] = {
    Kind.COMMANDS: (_WORDS, STREAMS_MAX),
    Kind.REPLIES: (_WORDS, STREAMS_MAX),
    Kind.CREDIT: (range(CREDIT.size, CREDIT.size + 1), STREAMS_MAX),
    Kind.GOSSIP: (_WORDS, 1),
    Kind.MOVE: (range(9, 17, 7), 1),  # strand.py's two forms
    Kind.CLOSE: (range(1), 1),
}
"""Of each kind: the lengths that it may have, and the streams."""
_NO_LAW: Final = (range(0), 0)
_read_header: Final = HEADER.unpack_from


class BodyWriter:
    """Fills one body; `finish` gives exactly BODY_LEN octets."""

    __slots__ = ("_parts", "room")

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self.room = BODY_LEN

    @property
    def empty(self) -> bool:
        """Nothing was added: the body would be padding."""
        return not self._parts

    @property
    def space(self) -> int:
        """Octets that one more segment could carry; 0 or less: none."""
        return self.room - HEADER_LEN

    def add(self, kind: int, stream: int, octets: bytes) -> None:
        """Append a segment that fits."""
        self._parts.append(HEADER.pack(kind, stream, len(octets)))
        self._parts.append(octets)
        self.room -= HEADER_LEN + len(octets)

    def finish(self) -> bytes:
        """Fill with zeros."""
        self._parts.append(PADDING[: self.room])
        return b"".join(self._parts)


def parse_untrusted(body: bytes) -> list[Segment]:
    """Read a body that a proven peer sealed; CellError when no honest one would."""
    if len(body) != BODY_LEN:
        raise CellError("a body of the wrong length")
    segments: list[Segment] = []
    view = memoryview(body)
    at = 0
    while at <= BODY_LEN - HEADER_LEN:
        kind, stream, length = _read_header(body, at)
        if not kind:
            break
        at += HEADER_LEN
        lengths, streams = _LAWS.get(kind, _NO_LAW)
        if stream >= streams:
            raise CellError("a segment of no known kind or stream")
        if length not in lengths or at + length > BODY_LEN:
            raise CellError("a segment of impossible length")
        if len(segments) == SEGMENTS_MAX:
            raise CellError("more segments than streams have a use for")
        segments.append(Segment(kind, stream, view[at : at + length]))
        at += length
    if at < BODY_LEN and body[at:] != PADDING[at:]:
        raise CellError("octets behind the last segment")
    return segments
