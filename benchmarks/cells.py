# SPDX-License-Identifier: MIT
"""A capture as a table of cells: what a snooper of one link can count and time.

A row is a cell of one node:

    sender      "alpha", who sends mail in busy blocks, or "bravo", who replies
    block, busy which block of the capture, and whether mail was on its way in it
    at, gap     seconds: its first segment, since the cell before
    sizes       octets of its segments, without those that were sent again
    again       segments that were sent again
    ack_delay   seconds from its last segment to the segment that acknowledges all of it
    acks        bare acknowledgements between its first segment and the next cell's

The connection with the most packets is taken: capture for less than its life.  Cells at
a block's edges are left out, and those that were not seen whole.
"""

import json
import struct
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, NamedTuple

from mesh.core.cell import CELL_LEN

NAMES: Final = ("alpha", "bravo")
GUARD_SECONDS: Final = 0.5
"""At a block's edges, whose cells are left out."""

Block = tuple[float, float, bool]
"""From when to when, in the packets' time, and whether it was a busy one."""


class Packet(NamedTuple):
    """One TCP segment: when, from the first node or not, numbers, payload's length."""

    at: float
    ours: bool
    sequence: int
    acknowledged: int
    length: int


@dataclass
class Row:
    """One cell."""

    sender: str
    block: int
    busy: bool
    at: float
    gap: float
    sizes: tuple[int, ...]
    again: int
    ack_delay: float
    acks: int


def packets(pcap: bytes) -> list[Packet]:
    """Read a capture of tcpdump: nanoseconds, Ethernet, IPv4, TCP; the largest link."""
    flows: dict[tuple[int, int], list[Packet]] = {}
    at = 24
    while at + 16 <= len(pcap):
        second, nano, held, _ = struct.unpack_from("=IIII", pcap, at)
        frame = pcap[at + 16 : at + 16 + held]
        at += 16 + held
        if len(frame) < 54:  # cut off in the middle of the last one
            continue
        begin = 14 + 4 * (frame[14] & 15)
        source, target, sequence, acknowledged = struct.unpack_from(
            "!HHII", frame, begin
        )
        total = struct.unpack_from("!H", frame, 16)[0]
        length = total - (begin - 14) - 4 * (frame[begin + 12] >> 4)
        ours = frame[29] == 1
        flow = (source, target) if ours else (target, source)
        when = second + nano / 1e9
        packet = Packet(when, ours, sequence, acknowledged, length)
        flows.setdefault(flow, []).append(packet)
    return max(flows.values(), key=len, default=[])


def table(seen: Sequence[Packet], blocks: Sequence[Block]) -> list[Row]:
    """Make a row of each whole cell that lies in a block, both nodes', by time."""
    rows = _rows(seen, blocks, NAMES[0])
    theirs = [packet._replace(ours=not packet.ours) for packet in seen]
    return sorted(rows + _rows(theirs, blocks, NAMES[1]), key=lambda row: row.at)


def _rows(seen: Sequence[Packet], blocks: Sequence[Block], sender: str) -> list[Row]:
    sent = [packet for packet in seen if packet.ours and packet.length]
    answers = [packet for packet in seen if not packet.ours]
    # A cell ends with a short segment: that tells where cells lie in the stream.
    longest = max((packet.length for packet in sent), default=0)
    ends = [_end(packet) % CELL_LEN for packet in sent if packet.length < longest]
    phase = max(set(ends), key=ends.count, default=0)
    numbers: dict[int, list[Packet]] = {}
    for packet in sent:
        number = (packet.sequence - phase) % (1 << 32) // CELL_LEN
        numbers.setdefault(number, []).append(packet)
    cells = list(numbers.values())
    firsts = [cell[0].at for cell in cells]
    rows = []
    for cell, before, after in zip(cells[1:], firsts, firsts[2:], strict=False):
        firsts_only = {packet.sequence: packet for packet in reversed(cell)}.values()
        once = sorted(firsts_only, key=lambda p: (p.sequence - phase) % CELL_LEN)
        block = _block(cell[0].at, blocks)
        if block is None or sum(packet.length for packet in once) != CELL_LEN:
            continue
        begin = bisect_left(answers, cell[0].at, key=lambda packet: packet.at)
        delay, acks = _answers(answers, begin, _end(once[-1]), after)
        if delay is None:
            continue
        rows.append(
            Row(
                sender=sender,
                block=block,
                busy=blocks[block][2],
                at=cell[0].at,
                gap=cell[0].at - before,
                sizes=tuple(packet.length for packet in once),
                again=len(cell) - len(once),
                ack_delay=delay - cell[-1].at,
                acks=acks,
            )
        )
    return rows


def _answers(
    answers: Sequence[Packet], begin: int, end: int, after: float
) -> tuple[float | None, int]:
    """When all was acknowledged, and how many bare ones came before the next cell."""
    acks, acked = 0, None
    for at in range(begin, len(answers)):
        packet = answers[at]
        if acked is None and (packet.acknowledged - end) % (1 << 32) < 1 << 31:
            acked = packet.at
        if packet.at >= after and acked is not None:
            break
        acks += not packet.length and packet.at < after
    return acked, acks


def _end(packet: Packet) -> int:
    return (packet.sequence + packet.length) % (1 << 32)


def _block(at: float, blocks: Sequence[Block]) -> int | None:
    for number, (begin, end, _) in enumerate(blocks):
        if begin + GUARD_SECONDS <= at < end - GUARD_SECONDS:
            return number
    return None


def save(rows: Sequence[Row], file: Path) -> None:
    """Write a table as JSON: a list of objects."""
    file.write_text(json.dumps([asdict(row) for row in rows]))


def load(file: Path) -> list[Row]:
    """Read one back."""
    rows = [Row(**fields) for fields in json.loads(file.read_text())]
    for row in rows:
        row.sizes = tuple(row.sizes)
    return rows
