# SPDX-License-Identifier: MIT
"""A capture file as its TCP connections: all that a snooper of a wire can write down.

    file       pcap, micro- and nanoseconds; pcapng                        (dpkt)
    frame      Ethernet, also 802.1Q; raw IP; Linux cooked, 1 and 2; BSD loopback
    packet     IPv4, IPv6; TCP.  Everything else is passed over
    packets    an array of PACKET for each connection, in the order of the capture

    at            nanoseconds since 1970
    side          0: from the first end, 1: from the second
    sequence      TCP's number of its first octet
    acknowledged  TCP's number of the octet that the sender waits for; 0 without ACK
    length        octets of payload, by the IP header: also where the capture is cut off
    window        octets: scaled where both SYNs were seen, else as it stands
    flags         TCP's

The first end is the lower address, then the lower port: the same in each capture of two
nodes, whoever dialled.  A SYN with another number begins a connection anew.
A file that ends in the middle of a packet ends there: so does a snooper's.
"""

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import IO, Any, Final, NamedTuple, TypeAlias

import dpkt
import numpy as np
from numpy.typing import NDArray

from mesh.errors import MessageError, NoInputError

PACKET: Final = np.dtype(
    [
        ("at", "i8"),
        ("side", "u1"),
        ("sequence", "u4"),
        ("acknowledged", "u4"),
        ("length", "u4"),
        ("window", "u4"),
        ("flags", "u1"),
    ]
)
_PACKET: Final = struct.Struct("=qBIIIIB")
"""The same octets, one packet's: a capture of hours has tens of millions."""
Packets: TypeAlias = NDArray[Any]
"""An array of PACKET."""

FIN: Final = 1
SYN: Final = 2
RST: Final = 4
PSH: Final = 8
ACK: Final = 16
TCP: Final = 6
"""IP's number for it."""
NANO: Final = 1_000_000_000
SCALE_MAX: Final = 14
"""RFC 7323, 2.3: a window is shifted by no more."""
_OPTION_SCALE: Final = 3
_IPV4: Final = 0x0800
_IPV6: Final = 0x86DD
_VLAN: Final = 0x8100
_TCP_LEN: Final = 20
_IPV6_LEN: Final = 40
_FRAGMENT: Final = 0x1FFF


class CaptureError(MessageError):
    """A file that is no capture, or has no link in it."""


class End(NamedTuple):
    """One end of a connection."""

    address: bytes
    port: int

    def __str__(self) -> str:
        return f"{ip_address(self.address)} {self.port}"


class _Segment(NamedTuple):
    source: End
    target: End
    sequence: int
    acknowledged: int
    length: int
    window: int
    flags: int
    scale: int | None
    """The shift of its sender's windows, where it is a SYN with one."""


@dataclass(frozen=True)
class Connection:
    """One TCP connection, as far as it was seen."""

    ends: tuple[End, End]
    packets: Packets

    @property
    def opener(self) -> int | None:
        """The side that dialled; None: its SYN was not seen."""
        flags = self.packets["flags"]
        syns = self.packets["side"][flags & (SYN | ACK) == SYN]
        return int(syns[0]) if len(syns) else None


@dataclass
class _Growing:
    """A connection while the file is read."""

    ends: tuple[End, End]
    rows: bytearray = field(default_factory=bytearray)
    scales: dict[int, int] = field(default_factory=dict)
    began: int | None = None
    """The number of the SYN."""

    def add(self, at: int, one: _Segment) -> None:
        """Append it; struct.error: `at` is past all clocks."""
        side = int(one.source != self.ends[0])
        if one.flags & SYN:
            self.scales[side] = -1 if one.scale is None else one.scale
            if not one.flags & ACK:
                self.began = one.sequence
        self.rows += _PACKET.pack(
            at, side, one.sequence, one.acknowledged, one.length, one.window, one.flags
        )

    def done(self) -> Connection:
        packets = np.frombuffer(self.rows, PACKET)
        if len(self.scales) == 2 and min(self.scales.values()) >= 0:
            for side, scale in self.scales.items():
                # A SYN's own window is never scaled: RFC 7323, 2.2.
                which = (packets["side"] == side) & (packets["flags"] & SYN == 0)
                packets["window"][which] <<= scale
        return Connection(self.ends, packets)


def read(path: Path) -> list[Connection]:
    """Read a capture's connections, in the order in which they began.

    NoInputError: there is no such file; CaptureError: it is no capture.
    """
    try:
        file = path.open("rb")
    except OSError as error:
        raise NoInputError(f"{path}: {error.strerror}") from error
    with file:
        return connections(file, str(path))


def connections(file: IO[bytes], name: str) -> list[Connection]:
    """Read an open file's; CaptureError: it is no capture."""
    growing: dict[tuple[End, End], _Growing] = {}
    done: list[_Growing] = []
    for at, packet in _packets(file, name):
        one = _segment(packet)
        if one is None:
            continue
        pair = (min(one.source, one.target), max(one.source, one.target))
        known = growing.get(pair)
        is_new = one.flags & (SYN | ACK) == SYN and (
            known is None or known.began != one.sequence
        )
        if known is None or is_new:
            known = growing[pair] = _Growing(pair)
            done.append(known)
        try:
            known.add(at, one)
        except struct.error as error:
            raise CaptureError(
                f"{name}: a packet's time is no clock's: capture it anew"
            ) from error
    return [each.done() for each in done]


# the file


def _packets(file: IO[bytes], name: str) -> Iterator[tuple[int, memoryview]]:
    """Each IP packet and when it was seen, in nanoseconds."""
    try:
        reader = dpkt.pcap.UniversalReader(file)
    except (ValueError, struct.error, MemoryError, dpkt.Error) as error:
        raise CaptureError(
            f"{name}: no capture: make one with `tcpdump -w FILE`"
        ) from error
    payload = _FRAMES.get(reader.datalink())
    if payload is None:
        raise CaptureError(
            f"{name}: a capture of a kind of network that is not known here; "
            "capture Ethernet, or with `-i any`"
        )
    frames = iter(reader)
    while True:
        try:
            when, frame = next(frames)
        except (StopIteration, dpkt.Error, struct.error, ValueError, MemoryError):
            return  # cut off here, or damaged: dpkt says it in each of these ways
        packet = payload(memoryview(frame))
        if packet is not None:
            # A float (all but pcap with nanoseconds) is right to 0.25 us.
            yield round(when * NANO), packet


def _ethernet(frame: memoryview) -> memoryview | None:
    at = 12
    while frame[at : at + 2] == _VLAN.to_bytes(2, "big"):
        at += 4
    return _of_kind(frame[at : at + 2], frame[at + 2 :])


def _of_kind(kind: memoryview, packet: memoryview) -> memoryview | None:
    known = int.from_bytes(kind, "big") in (_IPV4, _IPV6)
    return packet if known else None


_FRAMES: Final[dict[int, Callable[[memoryview], memoryview | None]]] = {
    1: _ethernet,
    0: lambda frame: frame[4:],  # BSD's loopback: its family's number, then IP
    108: lambda frame: frame[4:],
    12: lambda frame: frame,  # raw IP, by its numbers on several systems
    14: lambda frame: frame,
    101: lambda frame: frame,
    228: lambda frame: frame,
    229: lambda frame: frame,
    113: lambda frame: _of_kind(frame[14:16], frame[16:]),  # Linux cooked
    276: lambda frame: _of_kind(frame[0:2], frame[20:]),  # Linux cooked, 2
}
"""What lies around the packet, by the number of the link's type (tcpdump.org)."""


# the packet


def _segment(packet: memoryview) -> _Segment | None:
    """Take a packet apart; None: no TCP, or too little of it was kept."""
    version = packet[0] >> 4 if packet else 0
    if version == 4 and len(packet) >= 20:
        begin = 4 * (packet[0] & 15)
        total, fragment = struct.unpack_from("!H2xH", packet, 2)
        if packet[9] != TCP or fragment & _FRAGMENT:
            return None
        source, target = bytes(packet[12:16]), bytes(packet[16:20])
    elif version == 6 and len(packet) >= _IPV6_LEN:
        begin = _IPV6_LEN
        total = begin + struct.unpack_from("!H", packet, 4)[0]
        if packet[6] != TCP:
            return None
        source, target = bytes(packet[8:24]), bytes(packet[24:40])
    else:
        return None
    if len(packet) < begin + _TCP_LEN:
        return None
    from_port, to_port, sequence, acknowledged, offset, flags, window = (
        struct.unpack_from("!HHIIBBH", packet, begin)
    )
    length = total - begin - 4 * (offset >> 4)
    if length < 0:
        return None
    scale = None
    if flags & SYN:
        scale = _scale(packet[begin + _TCP_LEN : begin + 4 * (offset >> 4)])
    return _Segment(
        End(source, from_port), End(target, to_port), sequence,
        acknowledged if flags & ACK else 0, length, window, flags, scale,
    )  # fmt: skip


def _scale(options: memoryview) -> int | None:
    """The window's shift among TCP's options."""
    while options and options[0]:
        length = 1 if options[0] == 1 else options[1] if len(options) > 1 else 0
        if not 0 < length <= len(options):
            return None
        if options[0] == _OPTION_SCALE and length == 3:
            return min(options[2], SCALE_MAX)
        options = options[length:]
    return None
