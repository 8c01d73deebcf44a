# SPDX-License-Identifier: MIT
"""What a link's bodies are filled with, and the reading of those that are one segment.

    credit     as far as there is room, all of it
    replies    of each stream in its turn
    full       kind 1, a stream, 4,075, octets: of a large message nearly each body is one

Full bodies are written where they will be sealed and read where they were opened, many
at a time, without an object for each body or segment.  `room` is cells side by side, the
caller's, and nothing of it is kept.

Invariant: full bodies are those that would have been written one by one, and mean the
same.  A body that is no full one, that is not of a chunk's midst, or that no credit is
there for, is left to link.py, which reads each segment or refuses it.
"""

from collections.abc import Mapping
from typing import Final

from mesh.core.cell import (
    BODY_LEN,
    CELL_LEN,
    CREDIT,
    HEADER,
    HEADER_LEN,
    STREAMS_MAX,
    BodyWriter,
    Kind,
)
from mesh.core.streams import Inbound, Outbound, Tally

FULL_LEN: Final = BODY_LEN - HEADER_LEN
_COMMANDS: Final = int(Kind.COMMANDS)
_HEADERS: Final = tuple(
    HEADER.pack(_COMMANDS, stream, FULL_LEN) for stream in range(STREAMS_MAX)
)
_read_header: Final = HEADER.unpack_from


def write_credits(writer: BodyWriter, credits_: dict[int, int]) -> None:
    """Write the credit of streams, as far as there is room."""
    while credits_ and writer.space >= CREDIT.size:
        number, more = credits_.popitem()
        writer.add(Kind.CREDIT, number, CREDIT.pack(more))


def write_replies(
    writer: BodyWriter,
    turns: dict[int, None],
    streams: Mapping[int, Inbound],
    said: Tally,
) -> None:
    """Write the replies of streams in their turn, as far as there is room."""
    while turns and writer.space > 0:
        number = next(iter(turns))
        inbound = streams[number]
        octets = bytes(inbound.replies[: writer.space])
        del inbound.replies[: len(octets)]
        said.replies += len(octets)
        writer.add(Kind.REPLIES, number, octets)
        if not inbound.replies:
            del turns[number]
            inbound.due = False


def write_full(
    room: memoryview,
    turns: dict[int, None],
    streams: Mapping[int, Outbound],
    said: Tally,
) -> int:
    """Write full bodies, each stream in its turn, until one has none; octets of the cells."""
    at, end = 0, len(room)
    while turns and at < end:
        number = next(iter(turns))
        stream = streams[number]
        sender = stream.sender
        if sender is None:  # a person: has other things to say
            break
        outbox = sender.outbox
        count = min(stream.credit, outbox.octets) // FULL_LEN
        if not count:
            break
        if len(turns) > 1:
            count = 1
        stop = min(end, at + count * CELL_LEN)
        starts = range(at, stop, CELL_LEN)
        header = _HEADERS[number]
        for start in starts:
            room[start : start + HEADER_LEN] = header
        outbox.lay(room, range(at + HEADER_LEN, stop, CELL_LEN), FULL_LEN)
        stream.credit -= len(starts) * FULL_LEN
        said.commands += len(starts) * FULL_LEN
        at = stop
        del turns[number]
        if stream.credit > 0 and outbox.octets:
            turns[number] = None  # behind the others
    return at


def take_full_untrusted(
    room: memoryview, at: int, streams: Mapping[int, Inbound], heard: Tally
) -> tuple[int, list[int]]:
    """Take full bodies of chunks' midsts from `at` on; where they end, and their streams."""
    runs: dict[int, list[memoryview]] = {}
    lefts: dict[int, int] = {}
    end = len(room)
    while at < end:
        kind, number, length = _read_header(room, at)
        if kind != _COMMANDS or length != FULL_LEN:
            break
        left = lefts.get(number)
        if left is None:
            left = _awaited(streams.get(number))
        if left <= FULL_LEN:  # what ends a chunk is not its midst
            break
        lefts[number] = left - FULL_LEN
        body = room[at + HEADER_LEN : at + BODY_LEN]
        runs.setdefault(number, []).append(body)
        at += CELL_LEN
    for number, run in runs.items():
        octets = b"".join(run)
        heard.commands += len(octets)
        streams[number].take_chunk(octets)
    return at, list(runs)


def _awaited(inbound: Inbound | None) -> int:
    """Octets of a chunk that have not come and have credit, and one more of those."""
    if inbound is None or inbound.dialogue is None:
        return 0
    return min(inbound.dialogue.chunk_left, inbound.granted - inbound.received + 1)
