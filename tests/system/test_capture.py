# SPDX-License-Identifier: MIT
"""The fixture that captures a real link: that it works, and nothing about time."""

import os
import random
from collections.abc import Callable
from itertools import groupby
from pathlib import Path

import pytest

from benchmarks.capture import NoLossError, capture, look, namespaces
from benchmarks.cells import Packet, load, save, table
from benchmarks.rank import compare
from mesh.core.cell import CELL_LEN

SEGMENTS = (1448, 1448, 1200)
"""A cell in frames of 1,500 octets, with TCP's timestamps."""
NEEDS_ROOT = pytest.mark.skipif(
    os.geteuid() != 0, reason="a network namespace needs root"
)


@NEEDS_ROOT
def test_a_cell_is_three_segments_with_mail_and_without(
    tool: Callable[[str, str], str],
) -> None:
    for name, package in (
        ("ip", "iproute2"), ("ethtool", "ethtool"), ("tcpdump", "tcpdump"),
    ):  # fmt: skip
        tool(name, package)
    rows = capture(8.0, [False, True], 2.0)
    for sender in ("alpha", "bravo"):
        for busy in (False, True):
            some = [row for row in rows if (row.sender, row.busy) == (sender, busy)]
            assert 2 <= len(some) <= 60  # 8 of the law; a loaded host may merge some
            assert sum(row.sizes == SEGMENTS for row in some) >= len(some) / 2
            assert all(row.gap > 0 and row.ack_delay >= 0 for row in some)
            assert {row.block for row in some} == {int(busy)}


@NEEDS_ROOT
def test_packets_get_lost_or_it_is_said_that_they_cannot(
    tool: Callable[[str, str], str],
) -> None:
    for name, package in (("ip", "iproute2"), ("ethtool", "ethtool")):
        tool(name, package)
    said = ""
    try:
        with namespaces(0.1):
            pass
    except NoLossError as error:
        said = str(error)
    assert said in ("", "no loss: this kernel has no netem, or tc is missing")


def cell(at: float, sequence: int) -> list[Packet]:
    """A cell of ours, its acknowledgement, and another bare one."""
    packets = []
    for length in SEGMENTS:
        packets.append(Packet(at, True, sequence % (1 << 32), 1, length))
        sequence += length
    sequence %= 1 << 32
    packets.append(Packet(at + 0.01, False, 1, (sequence - 100) % (1 << 32), 0))
    packets.append(Packet(at + 0.02, False, 1, sequence, 0))
    return packets


@pytest.mark.parametrize("first", [500, (1 << 32) - 3 * CELL_LEN - 1000])
def test_a_table_has_a_row_for_each_cell_between_two_others_in_a_block(
    first: int,
) -> None:
    """Also where TCP's numbers begin again at 0."""
    seen = [
        packet for turn in range(10) for packet in cell(turn, first + CELL_LEN * turn)
    ]
    rows = table(seen, [(0.0, 5.2, False), (5.2, 9.9, True)])
    assert [row.busy for row in rows] == [False] * 4 + [True] * 3
    assert [row.block for row in rows] == [0] * 4 + [1] * 3
    for row in rows:
        assert (row.sender, row.gap, row.sizes) == ("alpha", 1.0, SEGMENTS)
        assert (row.acks, row.again) == (2, 0)
        assert row.ack_delay == pytest.approx(0.02)


def test_what_is_sent_again_is_one_cell_and_counted() -> None:
    seen = [packet for turn in range(5) for packet in cell(turn, CELL_LEN * turn)]
    lost = seen[6]  # the second segment of the second cell, again when the third came
    seen.insert(13, lost._replace(at=2.001))
    rows = table(seen, [(0.0, 9.9, False)])
    assert [row.again for row in rows] == [1, 0, 0]
    assert [row.sizes for row in rows] == [SEGMENTS] * 3
    assert [row.gap for row in rows] == [1.0] * 3


def test_the_other_node_s_cells_have_rows_too(tmp_path: Path) -> None:
    near = [packet for turn in range(6) for packet in cell(turn, CELL_LEN * turn)]
    far = [packet._replace(at=packet.at + 0.5, ours=not packet.ours) for packet in near]
    seen = sorted([*near, *far])
    rows = table(seen, [(0.0, 9.9, True)])
    both = {name: list(some) for name, some in groupby(sorted(rows, key=lambda r: r.sender), lambda r: r.sender)}  # fmt: skip
    assert [len(both[name]) for name in ("alpha", "bravo")] == [4, 4]
    save(rows, tmp_path / "table")
    assert load(tmp_path / "table") == rows


def test_the_look_finds_what_is_there_and_no_more() -> None:
    """Ten blocks of each kind; in one life busy ones acknowledge 0.2 ms later."""
    draw = random.Random(3)  # noqa: S311
    found = {}
    for later in (0.0, 0.0002):
        seen: list[Packet] = []
        blocks = []
        for number in range(20):
            busy = bool(number % 2)
            for turn in range(100):
                at = number * 100 + turn
                packets = cell(at, CELL_LEN * at)
                delay = draw.gauss(0.001, 0.0002) + later * busy
                packets[-1] = packets[-1]._replace(at=at + delay)
                seen += packets
            blocks.append((number * 100.0, number * 100.0 + 100, busy))
        told = {each.name: each for each in look(table(seen, blocks))}
        assert told["gap, ms"].auc == told["segments"].auc == 0.5  # all the same
        assert not told["gap, ms"].tells
        found[later] = told["ACK delay, ms"]
    assert not found[0.0].tells
    assert found[0.0].auc_low < 0.5 < found[0.0].auc_high
    assert found[0.0002].tells
    assert found[0.0002].auc == pytest.approx(0.76, abs=0.03)  # Phi(1 / sqrt 2)


def test_the_rank_test() -> None:
    """Against counting all pairs; ties are half."""
    idle, busy = [[1.0, 2.0], [2.0, 5.0]], [[2.0, 3.0, 9.0], []]
    pairs = [(i, b) for i in (1, 2, 2, 5) for b in (2, 3, 9)]
    wins = sum((b > i) + (b == i) / 2 for i, b in pairs)
    found = compare("x", idle, busy)
    assert found.auc == wins / len(pairs)
    assert (found.idle.count, found.busy.count) == (4, 3)
    assert (found.idle.mean, found.busy.middle) == (2.5, 3.0)
    assert found.auc_low <= found.auc <= found.auc_high
    with pytest.raises(ValueError, match="two values"):
        compare("x", idle, [[1.0]])


def test_what_a_whole_block_has_in_common_is_no_proof() -> None:
    """Two blocks of each kind whose levels differ by chance: the interval is wide."""
    idle = [[0.0 + n / 100 for n in range(100)], [5.0 + n / 100 for n in range(100)]]
    busy = [[1.0 + n / 100 for n in range(100)], [6.0 + n / 100 for n in range(100)]]
    found = compare("x", idle, busy)
    assert found.auc > 0.7
    assert found.auc_low < 0.5
