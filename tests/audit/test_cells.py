# SPDX-License-Identifier: MIT
"""From packets to rows: cells wherever they lie, and wires that have none."""

import io
import tracemalloc
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.audit.cells import (
    Block,
    bursts,
    labelled,
    rate_in,
    rows_of,
    trace_of,
)
from mesh.audit.trace import NO_BLOCK, Rows
from mesh.audit.wire import ACK, PSH, SYN, CaptureError, connections
from mesh.core.cell import CELL_LEN
from tests.audit.frames import (
    SEGMENTS,
    Hand,
    cell,
    ethernet,
    ipv4,
    opening,
    pcap,
    stream,
    turned,
)

WRAP = (1 << 32) - 3 * CELL_LEN - 1000
"""TCP's numbers begin again at 0 within the fourth cell."""


def rows_in(packets: list[Hand]) -> Rows:
    return rows_of(connections(pcap(packets), "it"))


@pytest.mark.parametrize("first", [500, WRAP])
def test_a_row_for_each_cell(first: int) -> None:
    rows = rows_in(stream(10, first))
    assert rows["at"].tolist() == [n / 2 for n in range(20)]
    assert rows["side"].tolist() == [0, 1] * 10
    mine = rows[rows["side"] == 0]
    assert np.isnan(mine["gap"][0])
    assert mine["gap"].tolist()[1:] == [1.0] * 9
    assert np.allclose(rows["ack_delay"], 0.02)
    assert set(zip(rows["segments"], rows["first"], rows["last"], strict=True)) == {
        (3, SEGMENTS[0], SEGMENTS[-1])
    }
    for name, value in (("acks", 2), ("again", 0), ("window", 500), ("block", -1)):
        assert rows[name].tolist() == [value] * 20, name
    assert not rows["busy"].any()


@given(st.integers(0, (1 << 32) - 1), st.integers(0, 40))
def test_cells_are_found_wherever_tcp_s_numbers_begin(first: int, late: int) -> None:
    """Also by who came later, in the middle of a cell."""
    packets = stream(16, first)[late:]
    rows = rows_in(packets)
    # A side has two packets of five that are the other's answers.
    assert len(rows) >= 2 * 16 - 2 - late / 2
    assert set(rows["segments"].tolist()) == {3}
    assert set(np.unique(rows["at"] % 0.5).tolist()) == {0.0}


def test_the_handshake_s_messages_are_no_cells() -> None:
    ours = [one for n in range(12) for one in cell(1.0 + n, 1 + CELL_LEN * n)]
    packets = sorted([*ours, *turned(ours, 0.5)])
    rows = rows_in([*opening(), *packets])
    assert [int((rows["side"] == side).sum()) for side in (0, 1)] == [10, 11]
    assert set(rows["window"].tolist()) == {500 << 7}


def test_what_is_sent_again_is_one_cell_and_counted() -> None:
    packets = stream(12)
    lost = next(one for one in packets if one.sequence == 4 * CELL_LEN + SEGMENTS[0])
    rows = rows_in(sorted([*packets, lost._replace(at=5.001)]))
    mine = rows[rows["side"] == 0]
    assert mine["again"].tolist() == [0] * 4 + [1] + [0] * 7
    assert set(mine["segments"].tolist()) == {3}
    assert mine["gap"].tolist()[1:] == [1.0] * 11


def test_a_cell_that_was_not_seen_whole_has_no_row() -> None:
    packets = stream(12)
    lost = next(one for one in packets if one.sequence == 4 * CELL_LEN + SEGMENTS[0])
    packets.remove(lost)
    rows = rows_in(packets)
    mine = rows[rows["side"] == 0]
    assert mine["at"].tolist() == [0.0, 1.0, 2.0, 3.0, *map(float, range(5, 12))]
    assert np.flatnonzero(np.isnan(mine["gap"])).tolist() == [0, 4]


def test_an_acknowledgement_that_never_came_is_no_number() -> None:
    packets = stream(12)
    rows = rows_in([one for one in packets if one.at < 11 or one.length])
    # The last but one is acknowledged by the other side's next cell.
    assert np.allclose(rows["ack_delay"][-2:], [0.5, np.nan], equal_nan=True)
    assert np.allclose(rows["ack_delay"][:-2], 0.02)
    assert rows["acks"].tolist()[-2:] == [0, 0]


def test_many_cells_in_one_write_are_cells_still() -> None:
    """`greedy`: segments lie across the borders between cells."""
    packets, sequence = list(stream(10)), 10 * CELL_LEN
    octets, at = 5 * CELL_LEN, 20.0
    while octets:
        length = min(1448, octets)
        packets.append(Hand(at, True, sequence, 1, length))
        sequence, octets, at = sequence + length, octets - length, at + 0.001
    rows = rows_in([*packets, Hand(at, False, 1, sequence, 0)])
    some = rows[(rows["side"] == 0) & (rows["at"] >= 20)]
    assert len(some) == 5
    assert some["segments"].tolist() == [3, 4, 4, 4, 4]
    assert some["first"].tolist() == [1448] * 5
    assert some["last"].tolist() == [1448, 1448, 1448, 1448, 20480 - 14 * 1448]
    assert np.allclose(some["gap"][1:], [0.002, 0.003, 0.003, 0.003])


def test_a_capture_without_a_link_is_refused_in_one_sentence(tmp_path: Path) -> None:
    said = "no link in it: no connection carries cells of 4096 octets both ways"
    few = stream(7)
    one_way = [one for one in stream(12) if one.ours or not one.length]
    other = [
        Hand(n / 10, bool(n % 2), 700 * (n // 2), 700 * (n // 2), 700)
        for n in range(300)
    ]
    uneven = [one._replace(length=500 + int(one.at) % 90) for one in other]
    mail = [
        one for n, one in enumerate(uneven) for one in [one._replace(sequence=n * n)]
    ]
    for number, packets in enumerate(([], few, one_way, mail, [*opening(), *mail])):
        file = tmp_path / str(number)
        file.write_bytes(pcap(packets).getvalue())
        with pytest.raises(CaptureError, match=said):
            trace_of(file)


def test_cells_of_one_moment_have_no_rate(tmp_path: Path) -> None:
    file = tmp_path / "wire.pcap"
    file.write_bytes(pcap([one._replace(at=1.0) for one in stream(12)]).getvalue())
    with pytest.raises(CaptureError, match="of one moment"):
        trace_of(file)


def pushed(packets: list[Hand]) -> list[Hand]:
    """As a stack sends them that sets PSH on the last segment of a write."""
    return [
        one._replace(flags=ACK | PSH) if one.length == 1200 else one for one in packets
    ]


def test_of_one_odd_length_a_link_is_a_link_by_where_writes_end() -> None:
    """Without a SYN, and with a segment that is longer than all others."""
    packets = [one for one in stream(20) if not one.flags & SYN]
    longest = Hand(10.2, True, 10 * CELL_LEN + CELL_LEN, 0, 1460)
    rows = rows_in([*pushed(packets), longest])
    assert (rows["side"] == 0).sum() == 20
    # Cells that the host joined, or that were captured before they were cut.
    joined = [
        one._replace(sequence=one.sequence - 2 * 1448, length=CELL_LEN)
        for one in pushed(packets)
        if one.flags & PSH
    ]
    some = [one for one in pushed(packets) if one.at < 10] + [
        one for one in joined if one.at >= 10
    ]
    rows = rows_in(some)
    assert len(rows) == 40
    assert set(rows["segments"].tolist()) == {1, 3}


def test_a_number_from_far_away_moves_nothing() -> None:
    """Two of them, half of TCP's numbers each, would move all that follows by a turn."""
    leap = (1 << 31) - 1
    plain = stream(20)
    for forged in (
        [Hand(10.1 + n / 10, True, leap * n % (1 << 32), 0, 7) for n in (1, 2)],
        [Hand(10.1, False, 0, leap, 0)],
    ):
        rows = rows_in(sorted([*plain, *forged], key=lambda one: one.at))
        assert len(rows) == 40
        assert np.allclose(rows["ack_delay"], 0.02)


def test_a_number_that_leaps_costs_no_memory() -> None:
    """Whoever can send the port a packet can write any number into it."""
    leap = (1 << 30) - 1  # as far as is believed
    forged = [Hand(30 + n, True, leap * n % (1 << 32), 0, 7) for n in range(1, 11)]
    octets = pcap(stream(20) + forged)
    tracemalloc.start()
    try:
        rows = rows_of(connections(octets, "it"))
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
    assert len(rows) == 40
    assert (rows["gap"][2:] == 1.0).all()


@given(st.sets(st.integers(0, 119)))
def test_a_cell_with_an_octet_unseen_has_no_row(unseen: set[int]) -> None:
    """Packets are left out: each cell of three segments, and an answer without octets."""
    every = stream(20)
    data = [number for number, one in enumerate(every) if one.length]
    assert len(data) == 120
    left = {data[number] for number in unseen}
    kept = [one for number, one in enumerate(every) if number not in left]
    lost = {number // 3 for number in unseen}  # its turn, and of which side
    for side in (0, 1):
        # A stream begins where it is first seen to, and ends where it is last.
        cells = [n // 2 for n in range(40) if n % 2 == side and n not in lost]
        if len(cells) < 12:
            return
    rows = rows_in(kept)
    for side in (0, 1):
        cells = [n // 2 for n in range(40) if n % 2 == side and n not in lost]
        mine = rows[rows["side"] == side]
        assert mine["at"].tolist() == [n + side / 2 for n in cells]
        follows = [here - before == 1 for before, here in pairwise(cells)]
        assert np.isfinite(mine["gap"][1:]).tolist() == follows


def test_of_several_links_that_of_most_cells_and_its_rate(tmp_path: Path) -> None:
    others = (("10.0.0.1", 7000), ("10.0.0.7", 5))
    small = pcap(stream(9), lambda one: ethernet(ipv4(one, others))).getvalue()[24:]
    both = pcap(stream(40)).getvalue() + small
    file = tmp_path / "wire.pcap"
    file.write_bytes(both)
    trace = trace_of(file)
    assert (len(trace.rows), trace.rate, trace.clock) == (80, 1.0, "")
    assert trace.source == f"{file}: of 2 links, that of 10.0.0.1 and 10.0.0.2"
    file.write_bytes(pcap(stream(40)).getvalue())
    assert trace_of(file).source == str(file)
    file.write_bytes(both)
    named = trace_of(file, rate=8.0, clock="renewal", source="a lab")
    assert (named.rate, named.clock, named.source) == (8.0, "renewal", "a lab")
    assert len(rows_of(connections(io.BytesIO(both), "it"))) == 80


def test_a_link_that_is_made_anew_is_one_trace() -> None:
    """The old one's cells count until the new one's begin."""
    old, new = stream(20), stream(20, at=15.25)
    loser = stream(10, at=20.125)
    ends = [(("10.0.0.1", 7000), ("10.0.0.2", port)) for port in (5, 6, 7)]
    octets = pcap([]).getvalue() + b"".join(
        pcap(some, lambda one, e=end: ethernet(ipv4(one, e))).getvalue()[24:]  # type: ignore[misc]
        for some, end in zip((old, new, loser), ends, strict=True)
    )
    rows = rows_of(connections(io.BytesIO(octets), "it"))
    assert len(rows) == 31 + 40
    assert (np.diff(rows["at"]) > 0).all()
    mine = rows[rows["side"] == 0]
    assert np.flatnonzero(np.isnan(mine["gap"])).tolist() == [0, 16]


@pytest.mark.parametrize("rate", [0.125, 1.0, 64.0])
def test_the_rate_is_a_class(rate: float) -> None:
    rows = rows_in(stream(40))
    rows["at"] /= rate * 1.2
    assert rate_in(rows) == rate


def test_blocks_have_guards_at_their_edges() -> None:
    rows = rows_in(stream(12))
    marked = labelled(rows, [Block(0.0, 5.25, False), Block(5.25, 11.9, True)])
    assert (rows["block"] == NO_BLOCK).all()  # the rows given are as they were
    first, second = (marked[marked["block"] == number] for number in (0, 1))
    assert (first["at"][0], first["at"][-1]) == (0.5, 4.5)
    assert (second["at"][0], second["at"][-1]) == (6.0, 11.0)
    assert second["busy"].all()
    assert not marked["busy"][marked["block"] != 1].any()
    assert len(labelled(rows, [Block(2.0, 3.0, True)], guard=0.0)[marked["busy"]])


def test_a_wire_without_cells_has_a_row_a_burst_and_one_a_silent_step() -> None:
    """A letter of 3,000 octets, its replies, and nothing else for ten seconds."""
    letter = [
        *opening(0, 0, 3.0),
        Hand(3.1, False, 1, 1, 20),
        Hand(3.2, True, 1, 21, 5),
        Hand(3.298, True, 6, 21, 10),  # after a pause
        Hand(3.299, False, 21, 16, 8),  # the next one is an answer to it
        Hand(3.3, True, 16, 29, 1448),
        Hand(3.301, True, 1464, 29, 1448),
        Hand(3.302, True, 2912, 29, 104),
        Hand(3.303, False, 29, 3016, 0),
        Hand(3.4, False, 29, 3016, 9),
        Hand(3.5, True, 3016, 38, 0, 17),
    ]
    rows = bursts(connections(pcap(letter), "it"), 1.0, 0.0, 10.0)
    ours = rows[rows["side"] == 0]
    sent = ours[ours["segments"] > 0]
    assert sent["at"].tolist() == [3.2, 3.298, 3.3]
    assert list(zip(sent["segments"], sent["first"], sent["last"], strict=True)) == [
        (1, 5, 5), (1, 10, 10), (3, 1448, 104),
    ]  # fmt: skip
    assert np.allclose(sent["ack_delay"], [0.099, 0.001, 0.001])
    assert sent["acks"].tolist() == [0, 0, 1]
    silent = ours[ours["segments"] == 0]
    assert np.allclose(silent["at"], [1, 2, 3, *np.arange(4.3, 10)])
    assert np.allclose(ours["gap"][1:], np.diff(ours["at"]))
    theirs = rows[rows["side"] == 1]
    assert theirs["first"][theirs["segments"] > 0].tolist() == [20, 8, 9]
    assert len(bursts([], 2.0, 0.0, 10.0)) == 2 * 19
    assert (rows["block"] == NO_BLOCK).all()


def test_octets_that_are_all_far_from_the_syn_are_no_link() -> None:
    far = opening(ours=(1 << 31) + 9)
    with pytest.raises(CaptureError, match="no link"):
        rows_in([*far, *stream(10)])
