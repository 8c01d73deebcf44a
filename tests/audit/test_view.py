# SPDX-License-Identifier: MIT
"""What is read off a trace: stretches, latency, labels from events, the clock."""

from dataclasses import replace
from typing import Final, Literal

import numpy as np
import pytest

from mesh.audit.cells import Block
from mesh.audit.features import cut
from mesh.audit.simulated import noisy, simulated
from mesh.audit.trace import NO_BLOCK, Event, Trace
from mesh.audit.view import (
    BLOCK_CELLS,
    GUARD_SECONDS,
    STRETCH_CELLS,
    carried,
    clock_in,
    filled,
    in_halves,
    labelled,
    latency,
    room_for,
    unpaired,
    wire_of,
)
from mesh.core.cell import BODY_LEN
from mesh.core.clock import Clock

RATE = 64.0
MAIL: Final[tuple[tuple[float, int, Literal["in", "out"], str], ...]] = (
    (5.0, 300, "out", "bravo"), (45.0, 700, "out", "bravo"), (5.0, 900, "in", "bravo"),
    (5.0, 900, "out", "alpha"), (15.0, 900, "out", "bravo"), (25.0, 900, "out", "bravo"),
)  # fmt: skip
LAWS = [Clock.RENEWAL, Clock.SLOTTED, Clock.POISSON, Clock.CONSTANT]


def link(count: int = 4000, clock: Clock = Clock.RENEWAL) -> Trace:
    return simulated(clock, RATE, count, rng := np.random.default_rng(3), noisy(rng))


def message(ident: str, begin: float, end: float) -> list[Event]:
    return [
        Event(begin, 1, ident, "in", "alpha"),
        Event(end, 1, ident, "out", "bravo"),
    ]


@pytest.mark.parametrize("clock", LAWS)
def test_the_clock_is_told_by_its_gaps(clock: Clock) -> None:
    assert clock_in(link(clock=clock)) == clock.name.lower()


def test_few_cells_tell_no_clock() -> None:
    assert clock_in(link(STRETCH_CELLS // 2)) == ""


def test_latency_is_from_the_first_in_to_the_last_out() -> None:
    events = message("a", 1.0, 2.0) + message("a", 1.5, 4.0) + message("b", 0.0, 1.0)
    assert latency(events) == 2.0  # of 3.0 and 1.0
    assert latency(events[:1]) is None
    assert latency(events[1:2]) is None


def test_what_a_link_carried_is_what_came_in_its_busy_blocks() -> None:
    blocks = [Block(0, 10, True), Block(20, 30, False), Block(40, 50, True)]
    events = [Event(at, size, str(at), what, place) for at, size, what, place in MAIL]
    assert carried(events, blocks, "bravo", 100.0) == pytest.approx(0.5)
    assert carried(events, blocks[1:2], "bravo", 100.0) is None


def test_rows_are_busy_while_a_message_is_on_its_way() -> None:
    trace = link()
    events = (
        message("a", 10.0, 13.0) + message("b", 12.0, 15.0) + message("c", 30.0, 30.1)
    )
    rows = labelled(trace, events).rows
    at, block, busy = rows["at"], rows["block"], rows["busy"]
    assert (busy[block != NO_BLOCK] == ((at > 10) & (at < 15))[block != NO_BLOCK]).all()
    guarded = np.zeros(len(rows), bool)
    for edge in (10.0, 15.0, 30.0, 30.1):
        guarded |= abs(at - edge) < GUARD_SECONDS
    assert (block[guarded] == NO_BLOCK).all()
    assert (block[~guarded] != NO_BLOCK).all()
    for number in set(block.tolist()) - {NO_BLOCK}:
        mine = rows[block == number]
        assert len(set(mine["busy"].tolist())) == 1
        assert (mine["side"] == 0).sum() <= BLOCK_CELLS
        # Nothing of another block between its first cell and its last.
        inside = (at >= mine["at"][0]) & (at <= mine["at"][-1])
        assert set(block[inside].tolist()) <= {number}


def test_without_events_all_is_idle() -> None:
    rows = labelled(link(100), []).rows
    assert not rows["busy"].any()
    assert (rows["block"] == 0).all()


def test_a_stretch_of_each_kind_from_its_begin() -> None:
    trace = labelled(link(), message("a", 10.0, 15.0))
    wire = wire_of(trace, "pair")
    assert wire is not None
    assert wire.seconds == STRETCH_CELLS / RATE
    for lane in (wire.idle, wire.busy):
        assert lane[0][0] == 0.0
        assert {side for _, side in lane} == {0, 1}
        assert len(lane) == pytest.approx(2 * STRETCH_CELLS, rel=0.4)
        assert all(0 <= at < wire.seconds for at, _ in lane)
    rows = trace.rows[trace.rows["busy"] & (trace.rows["block"] != NO_BLOCK)]
    assert wire.busy[5][0] == pytest.approx(rows["at"][5] - rows["at"][0], abs=1e-6)


def test_nothing_is_drawn_where_one_kind_is_missing() -> None:
    assert wire_of(labelled(link(100), []), "pair") is None


def test_silence_is_not_drawn() -> None:
    trace = labelled(link(), message("a", 10.0, 15.0))
    rows = trace.rows.copy()
    rows["segments"] = 0
    wire = wire_of(trace.with_rows(rows), "pair")
    assert wire is not None
    assert wire.idle == wire.busy == ()


def test_a_coin_for_each_block() -> None:
    for count, blocks in ((4000, 24), (100, 2), (40_000, 40)):
        rows = in_halves(link(count), np.random.default_rng(1)).rows
        labels = [set(rows["busy"][rows["block"] == n].tolist()) for n in range(blocks)]
        assert all(len(label) == 1 for label in labels)
        assert sum(label == {True} for label in labels) == pytest.approx(
            blocks / 2, abs=1
        )
        assert int(rows["block"].max()) + 1 in (blocks, blocks + 1)


@pytest.mark.parametrize("cells", [128, 1_024, 3_600])
@pytest.mark.parametrize("clock", [Clock.RENEWAL, Clock.POISSON])
def test_blocks_have_room_for_the_windows_that_are_asked_for(
    cells: int, clock: Clock
) -> None:
    rng = np.random.default_rng(7)
    count = 8 * room_for(cells)
    trace = simulated(clock, RATE, count, rng)
    assert len(cut(in_halves(trace, rng, cells), cells)) >= 6
    # Two messages, each on its way for a quarter of the time.
    part = count / RATE / 4
    events = message("a", 0.0, part) + message("b", 2 * part, 3 * part)
    label = cut(labelled(trace, events, cells), cells).label
    assert min(label.sum(), (~label).sum()) >= 2


def test_a_message_seen_once_makes_no_cell_idle_or_busy() -> None:
    """It may have been on its way as long as the longest, five seconds."""
    known = message("a", 10.0, 15.0)
    lost = [Event(25.0, 1, "b", "in", "alpha"), Event(45.0, 1, "c", "out", "bravo")]
    rows = labelled(link(), known + lost).rows
    at, block = rows["at"], rows["block"]
    perhaps = ((at > 25.0) & (at < 30.0)) | ((at > 40.0) & (at < 45.0))
    assert perhaps.sum() > 1_000
    assert (block[perhaps] == NO_BLOCK).all()
    rest = (abs(at - 27.5) > 4.0) & (abs(at - 42.5) > 4.0) & (abs(at - 12.5) > 4.0)
    assert (block[rest] != NO_BLOCK).all()
    assert unpaired(known + lost) == 2
    assert unpaired(known) == 0
    # Twice in is not through.
    twice = [Event(20.0, 1, "d", "in", "alpha"), Event(24.0, 1, "d", "in", "bravo")]
    rows = labelled(link(), known + twice).rows
    assert not rows["busy"][rows["at"] > 16].any()
    assert (rows["block"][(rows["at"] > 20) & (rows["at"] < 24)] == NO_BLOCK).all()


def test_how_much_of_the_busy_time_had_mail_in_it() -> None:
    trace = link()
    room = RATE * BODY_LEN
    one = [replace(each, size=round(room)) for each in message("a", 10.0, 14.0)]
    assert filled(trace, one) == pytest.approx(0.25)
    # Two at once are in the same cells; one that was not seen to leave is not counted.
    other = [replace(each, ident="b") for each in one]
    assert filled(trace, one + other) == pytest.approx(0.5)
    assert filled(trace, one + other[:1]) == pytest.approx(0.25)
    assert filled(trace, [replace(each, size=10**9) for each in one]) == 1.0
    assert filled(trace, []) == 0.0
