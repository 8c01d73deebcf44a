# SPDX-License-Identifier: MIT
"""Packets made by hand, as frames and as capture files."""

import io
import struct
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

import dpkt

from mesh.audit.wire import ACK, SYN
from mesh.core.cell import CELL_LEN

SEGMENTS: Final = (1448, 1448, 1200)
"""A cell in frames of 1,500 octets, with TCP's timestamps."""
ALPHA: Final = ("10.0.0.1", 7000)
BRAVO: Final = ("10.0.0.2", 40000)


class Hand(NamedTuple):
    """One packet: seconds, from the first node or not, TCP's numbers."""

    at: float
    ours: bool
    sequence: int
    acknowledged: int
    length: int
    flags: int = ACK
    window: int = 500
    options: bytes = b""


def ipv4(
    one: Hand, ends: tuple[tuple[str, int], tuple[str, int]] = (ALPHA, BRAVO)
) -> bytes:
    """Write it as an IPv4 packet whose payload was cut off, as a snooper keeps it."""
    tcp = _tcp(one, ends)
    head = struct.pack(
        "!BBHHHBBH4s4s", 0x45, 0, 20 + len(tcp) + one.length, 0, 0, 64, 6, 0,
        *(_address(end[0]) for end in _way(one, ends)),
    )  # fmt: skip
    return head + tcp


def ipv6(one: Hand) -> bytes:
    """Write it as an IPv6 packet."""
    tcp = _tcp(one, (ALPHA, BRAVO))
    ends = [bytes(15) + bytes([1 + (not one.ours)]), bytes(15) + bytes([1 + one.ours])]
    return (
        struct.pack("!IHBB", 6 << 28, len(tcp) + one.length, 6, 64)
        + b"".join(ends)
        + tcp
    )


def _tcp(one: Hand, ends: tuple[tuple[str, int], tuple[str, int]]) -> bytes:
    ports = [end[1] for end in _way(one, ends)]
    offset = (20 + len(one.options)) // 4 << 4
    return struct.pack(
        "!HHIIBBHHH", *ports, one.sequence % (1 << 32), one.acknowledged % (1 << 32),
        offset, one.flags, one.window, 0, 0,
    ) + one.options  # fmt: skip


def _way(
    one: Hand, ends: tuple[tuple[str, int], tuple[str, int]]
) -> tuple[tuple[str, int], tuple[str, int]]:
    return ends if one.ours else (ends[1], ends[0])


def _address(text: str) -> bytes:
    return bytes(map(int, text.split(".")))


def ethernet(packet: bytes) -> bytes:
    """Put a packet into a frame."""
    return bytes(12) + (b"\x08\x00" if packet[0] >> 4 == 4 else b"\x86\xdd") + packet


def pcap(
    packets: Iterable[Hand],
    write: Callable[[Hand], bytes] = lambda one: ethernet(ipv4(one)),
    *,
    kind: int = 1,
    writer: type = dpkt.pcap.Writer,
) -> io.BytesIO:
    """Write a capture file with nanoseconds."""
    file = io.BytesIO()
    options = {"nano": True} if writer is dpkt.pcap.Writer else {}
    out = writer(file, linktype=kind, **options)
    for one in packets:
        out.writepkt(write(one), ts=one.at)
    return io.BytesIO(file.getvalue())


def opening(ours: int = 0, theirs: int = 0, at: float = 0.0) -> list[Hand]:
    """Both SYNs: the first node dials; windows are shifted by 7."""
    scale = b"\x01\x03\x03\x07"
    return [
        Hand(at, True, ours, 0, 0, SYN, 500, scale),
        Hand(at, False, theirs, ours + 1, 0, SYN | ACK, 500, scale),
    ]


def cell(at: float, sequence: int, heard: int = 1) -> list[Hand]:
    """A cell of ours, an acknowledgement of less, and one of all."""
    packets = []
    for length in SEGMENTS:
        packets.append(Hand(at, True, sequence, heard, length))
        sequence += length
    packets.append(Hand(at + 0.01, False, 1, sequence - 100, 0))
    packets.append(Hand(at + 0.02, False, 1, sequence, 0))
    return packets


def turned(packets: Iterable[Hand], later: float = 0.0) -> list[Hand]:
    """The same, the other way."""
    return [one._replace(at=one.at + later, ours=not one.ours) for one in packets]


def stream(count: int, first: int = 0, at: float = 0.0) -> list[Hand]:
    """Cells of both nodes, one a second and side, the second node's half a second on."""
    packets = []
    for turn in range(count):
        begin = first + CELL_LEN * turn
        packets += cell(at + turn, begin, begin)
        packets += turned(cell(at + turn + 0.5, begin, begin + CELL_LEN))
    return packets
