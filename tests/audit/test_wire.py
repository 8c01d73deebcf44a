# SPDX-License-Identifier: MIT
"""A capture file's connections, whatever it was captured with."""

import io
import os
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import dpkt
import pytest

from mesh.audit.wire import (
    ACK,
    FIN,
    NANO,
    SYN,
    CaptureError,
    Connection,
    connections,
    read,
)
from mesh.errors import NoInputError
from tests.audit.frames import Hand, cell, ethernet, ipv4, ipv6, opening, pcap

LIFE = [*opening(99, 500), *cell(1.5, 100), Hand(2.25, False, 501, 4196, 7)]


def seen(file: io.BytesIO) -> list[Connection]:
    return connections(file, "it")


@pytest.mark.parametrize(
    ("kind", "write"),
    [
        (1, lambda one: ethernet(ipv4(one))),
        (1, lambda one: ethernet(ipv6(one))),
        (1, lambda one: bytes(12) + b"\x81\x00\x00\x05\x08\x00" + ipv4(one)),
        (101, ipv4),
        (12, ipv6),
        (0, lambda one: b"\x02\0\0\0" + ipv4(one)),
        (113, lambda one: bytes(14) + b"\x08\x00" + ipv4(one)),
        (276, lambda one: b"\x86\xdd" + bytes(18) + ipv6(one)),
    ],
    ids=["ethernet", "ipv6", "vlan", "raw", "raw ipv6", "bsd", "cooked", "cooked 2"],
)
@pytest.mark.parametrize("writer", [dpkt.pcap.Writer, dpkt.pcapng.Writer])
def test_each_kind_of_capture_gives_the_same(
    kind: int, write: Callable[[Hand], bytes], writer: type
) -> None:
    (one,) = seen(pcap(LIFE, write, kind=kind, writer=writer))
    assert [str(end).split()[1] for end in one.ends] == ["7000", "40000"]
    assert one.opener == 0
    packets = one.packets
    assert packets["side"].tolist() == [0, 1, 0, 0, 0, 1, 1, 1]
    assert packets["sequence"].tolist() == [99, 500, 100, 1548, 2996, 1, 1, 501]
    assert packets["length"].tolist() == [0, 0, 1448, 1448, 1200, 0, 0, 7]
    assert packets["acknowledged"].tolist()[-3:] == [4096, 4196, 4196]
    assert packets["at"].tolist()[2] == 1_500_000_000
    assert packets["at"].tolist()[-1] == 2_250_000_000
    # The SYNs' own are not shifted, by RFC 7323.
    assert packets["window"].tolist() == [500, 500, *[500 << 7] * 6]
    assert packets["flags"].tolist()[:3] == [SYN, SYN | ACK, ACK]


def test_nanoseconds_are_kept_and_nothing_is_rounded() -> None:
    """A double of seconds since 1970 would be 0.2 us off."""
    file = pcap([]).getvalue()
    frame = ethernet(ipv4(Hand(0, True, 1, 1, 5)))
    head = b"".join(
        number.to_bytes(4, "little") for number in (1_700_000_000, 123_456_789)
    )
    length = len(frame).to_bytes(4, "little")
    (one,) = seen(io.BytesIO(file + head + length * 2 + frame))
    assert one.packets["at"].tolist() == [1_700_000_000 * NANO + 123_456_789]


def test_an_option_of_a_wrong_length_is_refused_in_one_sentence() -> None:
    """The interface's resolution has one octet, as dumpcap writes it; here it has two."""
    option = struct.pack("<HHBBxxHH", 9, 2, 6, 6, 0, 0)
    body = struct.pack("<HHI", 1, 0, 0) + option
    length = 12 + len(body)
    interface = struct.pack("<II", 1, length) + body + struct.pack("<I", length)
    file = pcap([], writer=dpkt.pcapng.Writer).getvalue()[:28] + interface
    with pytest.raises(CaptureError, match=r"^it: no capture"):
        connections(io.BytesIO(file), "it")


def test_a_time_past_all_clocks_is_refused_in_one_sentence() -> None:
    """A pcapng's may be 600,000 years on: its microseconds have 64 bits."""
    file = pcap([Hand(2e10, True, 1, 1, 5)], writer=dpkt.pcapng.Writer)
    with pytest.raises(CaptureError, match=r"^it: a packet's time is no clock's"):
        connections(file, "it")


def test_without_a_scale_of_both_windows_are_as_they_stand() -> None:
    plain = [one._replace(options=b"") if not one.ours else one for one in opening()]
    (one,) = seen(pcap([*plain, *cell(1, 1)]))
    assert set(one.packets["window"].tolist()) == {500}
    (late,) = seen(pcap(cell(1, 1)))
    assert set(late.packets["window"].tolist()) == {500}
    assert late.opener is None


def test_a_second_syn_is_a_second_connection_and_one_sent_again_is_not() -> None:
    first = [*opening(5), opening(5)[0], *cell(1, 6)]
    again = [*opening(90, at=2.0), *cell(3, 91)]
    found = seen(pcap([*first, *again]))
    assert [len(one.packets) for one in found] == [8, 7]
    assert [one.opener for one in found] == [0, 0]


def test_each_pair_of_ends_is_a_connection() -> None:
    other = (("10.0.0.9", 1), ("10.0.0.1", 7000))
    file = pcap(cell(1, 1) * 2, lambda one: ethernet(ipv4(one)))
    both = io.BytesIO(
        file.getvalue()
        + pcap(cell(1, 1), lambda one: ethernet(ipv4(one, other))).getvalue()[24:]
    )
    found = seen(both)
    assert [len(one.packets) for one in found] == [10, 5]
    assert [tuple(map(str, one.ends)) for one in found] == [
        ("10.0.0.1 7000", "10.0.0.2 40000"),
        ("10.0.0.1 7000", "10.0.0.9 1"),
    ]
    assert found[1].packets["side"].tolist() == [
        1,
        1,
        1,
        0,
        0,
    ]  # the lower one is first


def test_what_is_no_tcp_or_cut_too_short_is_passed_over() -> None:
    good = Hand(1, True, 1, 1, 5, FIN | ACK)
    whole = ipv4(good)
    odd = [
        b"",
        whole[:19],
        whole[:39],
        whole[:9] + b"\x11" + whole[10:],  # UDP
        whole[:6] + b"\x00\x07" + whole[8:],  # a later fragment
        whole[:2] + b"\x00\x10" + whole[4:],  # shorter than its heads
        b"\x50" + whole[1:],
        ipv6(good)[:6] + b"\x00" + ipv6(good)[7:],  # options, hop by hop
        ipv6(good)[:50],
    ]
    packets = iter([*odd, whole])
    (one,) = seen(pcap([good] * (len(odd) + 1), lambda _: next(packets), kind=101))
    assert one.packets["length"].tolist() == [5]
    arp = pcap([good] * 2, lambda _: bytes(12) + b"\x08\x06" + bytes(28))
    assert seen(arp) == []


@pytest.mark.parametrize("options", [b"\x03\x03", b"\x08\x00", b"\x03\x03\x07\x00"])
def test_options_of_any_kind_are_read_or_left(options: bytes) -> None:
    padded = options + bytes(-len(options) % 4)
    syns = [one._replace(options=padded) for one in opening()]
    (one,) = seen(pcap([*syns, Hand(1, True, 1, 1, 5)]))
    assert one.packets["window"].tolist()[-1] in (500, 500 << 7)


@pytest.mark.parametrize("writer", [dpkt.pcap.Writer, dpkt.pcapng.Writer])
@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_a_file_that_ends_in_the_middle_ends_there(writer: type, cut: int) -> None:
    file = pcap(LIFE, writer=writer).getvalue()[:-cut]
    (one,) = seen(io.BytesIO(file))
    assert len(LIFE) - 2 <= len(one.packets) <= len(LIFE)


@pytest.mark.parametrize("length", [0, 4, 7, 9, (1 << 32) - 1])
def test_a_block_of_no_length_ends_a_file(tmp_path: Path, length: int) -> None:
    hand = [Hand(n, True, n, 1, 5) for n in range(4)]
    parts = [pcap(hand[:n], writer=dpkt.pcapng.Writer).getvalue() for n in (3, 4)]
    octets = bytearray(parts[1])
    octets[len(parts[0]) + 4 : len(parts[0]) + 8] = struct.pack("=I", length)
    (tmp_path / "wire").write_bytes(octets)
    (one,) = read(tmp_path / "wire")
    assert len(one.packets) == 3


@pytest.mark.parametrize("octets", [b"", b"Subject: no", bytes(100), b"\n\r\r\n" * 30])
def test_what_is_no_capture_is_refused_in_one_sentence(
    octets: bytes, tmp_path: Path
) -> None:
    file = tmp_path / "it"
    file.write_bytes(octets)
    with pytest.raises(CaptureError, match=r"it: no capture: make one with `tcpdump"):
        read(file)


def test_an_unknown_kind_of_network_and_no_file(tmp_path: Path) -> None:
    with pytest.raises(CaptureError, match="kind of network"):
        seen(pcap(LIFE, kind=105))
    with pytest.raises(NoInputError, match="No such file"):
        read(tmp_path / "none")


@pytest.mark.parametrize("place", ["first packet", "first block"])
def test_a_length_beyond_the_memory_is_no_bug(tmp_path: Path, place: str) -> None:
    """Four GiB are said to follow, on a machine that has two."""
    file = tmp_path / "wire.pcap"
    most = 0xFFFFFFF0.to_bytes(4, "little")
    if place == "first packet":
        file.write_bytes(pcap([]).getvalue() + bytes(8) + most * 2)
    else:
        octets = pcap([], writer=dpkt.pcapng.Writer).getvalue()
        file.write_bytes(octets[:4] + most + octets[8:])
    words = (
        "import resource\n"
        "from pathlib import Path\n"
        "from mesh.audit.wire import CaptureError, read\n"
        "resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))\n"
        f"try: print(read(Path({str(file)!r})))\n"
        "except CaptureError: print('none')\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", words], check=True, capture_output=True, text=True,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
    )  # fmt: skip
    assert ran.stdout.strip() in ("[]", "none")
