# SPDX-License-Identifier: MIT
"""The fixture that captures a real link: that it works, and nothing about time."""

import os
from collections.abc import Callable

import pytest

from benchmarks.capture import Packet, capture, table
from mesh.core.cell import CELL_LEN

SEGMENTS = (1448, 1448, 1200)
"""A cell in frames of 1,500 octets, with TCP's timestamps."""


@pytest.mark.skipif(os.geteuid() != 0, reason="a network namespace needs root")
def test_a_cell_is_three_segments_with_mail_and_without(
    tool: Callable[[str, str], str],
) -> None:
    for name, package in (
        ("ip", "iproute2"), ("ethtool", "ethtool"), ("tcpdump", "tcpdump"),
    ):  # fmt: skip
        tool(name, package)
    rows = capture(8.0, [False, True], 2.0)
    for busy in (False, True):
        some = [row for row in rows if row.busy is busy]
        assert 2 <= len(some) <= 60  # 8 of the law; a loaded host may merge some
        assert sum(row.sizes == SEGMENTS for row in some) >= len(some) / 2
        assert all(row.gap > 0 and row.ack_delay >= 0 for row in some)


def cell(at: float, sequence: int) -> list[Packet]:
    """A cell of ours, its acknowledgement, and another bare one."""
    packets = []
    for length in SEGMENTS:
        packets.append(Packet(at, True, sequence, 1, length))
        sequence += length
    packets.append(Packet(at + 0.01, False, 1, sequence - 100, 0))
    packets.append(Packet(at + 0.02, False, 1, sequence, 0))
    return packets


def test_a_table_has_a_row_for_each_cell_between_two_others_in_a_block() -> None:
    seen = [
        packet for turn in range(10) for packet in cell(turn, 500 + CELL_LEN * turn)
    ]
    rows = table(seen, [(0.0, 5.2, False), (5.2, 9.9, True)])
    assert [row.busy for row in rows] == [False] * 4 + [True] * 3
    for row in rows:
        assert (row.gap, row.sizes, row.acks) == (1.0, SEGMENTS, 2)
        assert row.ack_delay == pytest.approx(0.02)
