# SPDX-License-Identifier: MIT
"""What is judged, with which bounds, and what is said where there is too little."""

from functools import partial

import numpy as np
import pytest

from mesh.audit import disclosure, judge, matching, sizes
from mesh.audit.attackers import LikelihoodRatio
from mesh.audit.bounds import SIZE, bound_of, rate_bound
from mesh.audit.features import cut
from mesh.audit.figures import Figure
from mesh.audit.lab import Captured
from mesh.audit.matching import Seen
from mesh.audit.planting import LATE
from mesh.audit.simulated import simulated
from mesh.audit.trace import NO_BLOCK, SIDES, Event
from mesh.audit.view import in_halves
from mesh.core.clock import Clock
from tests.audit.worlds import bare, covered

SECONDS = 60.0


def captured(seen: Seen, rng: np.random.Generator) -> Captured:
    """As the lab gives it: alpha sends through bravo and charlie to the sink."""
    events = []
    for number, (came, left) in enumerate(zip(seen.arrived, seen.left, strict=True)):
        size = int(rng.integers(2_000, 60_000))
        for at, what, place in (
            (came - 0.005, "in", "alpha"), (came, "out", "bravo"), (left, "in", "bravo"),
            (left + 0.01, "out", "charlie"), (left + 0.012, "in", "charlie"),
            (np.ceil(left + 0.5), "out", "sink"),
        ):  # fmt: skip
            events.append(
                Event(
                    float(at), size, str(number), "in" if what == "in" else "out", place
                )
            )
    return Captured(dict(zip(judge.WIRES, (seen.first, seen.second), strict=True)), events, [])  # fmt: skip


@pytest.fixture(scope="module")
def worlds() -> tuple[Captured, Captured]:
    rng = np.random.default_rng(3)
    return captured(covered(SECONDS, rng), rng), captured(bare(SECONDS, rng), rng)


def test_messages_have_every_figure_and_the_bounds_of_their_number(
    worlds: tuple[Captured, Captured], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(matching, "PLANTED", ())  # these are test_matching's
    monkeypatch.setattr(matching, "NEGATIVES", 2)
    cheaper = partial(matching.figures, matchers=("statistical",))
    monkeypatch.setattr(matching, "figures", cheaper)
    monkeypatch.setattr(sizes, "figures", partial(sizes.figures, guesses=("excess",)))
    shorter = partial(disclosure.figure, worlds=4)
    monkeypatch.setattr(disclosure, "figure", shorter)
    told = list(judge.messages(*worlds, np.random.default_rng(1)))
    figures = [one for one in told if isinstance(one, Figure)]
    assert len(figures) == len(told)
    names = {figure.name.partition(",")[0] for figure in figures}
    assert names == {"matching", "size", "disclosure", "port 25"}
    for figure in figures:
        if figure.unit == "rho":
            assert figure.bound == bound_of(SIZE, figure.count)
        if figure.unit == "rate":
            assert figure.bound == rate_bound(figure.count)
        assert figure.controls


def test_messages_without_a_control_are_not_judged(
    worlds: tuple[Captured, Captured],
) -> None:
    (note,) = judge.messages(worlds[0], None, np.random.default_rng(1))
    assert isinstance(note, str)
    assert "control" in note


def test_few_messages_are_said_to_be_few(worlds: tuple[Captured, Captured]) -> None:
    chain, plain = worlds
    few = Captured(chain.traces, chain.events[:60], chain.blocks)
    told = list(judge.messages(few, plain, np.random.default_rng(1)))
    assert len(told) == 4
    assert all(isinstance(one, str) and "only 10 messages" in one for one in told)


def test_messages_in_too_few_places_are_said_to_be(
    worlds: tuple[Captured, Captured], monkeypatch: pytest.MonkeyPatch
) -> None:
    def folds(*_: object) -> None:
        raise ValueError("two blocks of each kind are wanted")

    monkeypatch.setattr(sizes, "figures", folds)
    monkeypatch.setattr(judge, "PARTS", {"sizes": judge.PARTS["sizes"]})
    (note,) = judge.messages(*worlds, np.random.default_rng(1))
    assert note == "sizes: two blocks of each kind are wanted"


def test_the_white_box_wants_counts_of_either_kind() -> None:
    idle, busy = [0] * 32, [0] * 32
    idle[6] = 10_000
    told = list(
        judge.white_box(
            Captured({}, [], [], {"idle": idle, "busy": busy}),
            "renewal",
            np.random.default_rng(1),
        )
    )
    assert told == ["a white box (0 cells counted)"]


def test_windows_that_are_too_few_are_counted() -> None:
    trace = simulated(Clock.RENEWAL, 256.0, 6_000, np.random.default_rng(1))
    halves = in_halves(trace, np.random.default_rng(1))
    assert judge.too_few(halves, 32) == ""
    assert judge.too_few(halves, 1_024) == "1,024 cells (0 idle, 0 busy)"
    assert judge.too_few(trace.only(trace.rows["at"] < 0), 32).startswith("32 cells (")


def test_of_too_many_windows_each_block_loses_some_and_stays_in_one_piece() -> None:
    rng = np.random.default_rng(2)
    trace = in_halves(simulated(Clock.RENEWAL, 64.0, 4_000, rng), rng)
    windows = cut(trace, 8)
    whole = dict(zip(windows.block.tolist(), windows.label.tolist(), strict=True))
    half = judge.thinned(trace, 8, rng, len(windows) // 2)
    fewer = cut(half, 8)
    assert len(fewer) == len(windows) // 2
    assert all(
        whole[block] == label
        for block, label in zip(fewer.block.tolist(), fewer.label.tolist(), strict=True)
    )
    assert set(fewer.block) == set(whole)
    for block in whole:
        for side in SIDES:
            mine = half.rows[half.rows["side"] == side]
            inside = np.flatnonzero(mine["block"] == block)
            assert len(inside) == inside[-1] - inside[0] + 1
    assert judge.thinned(trace, 8, rng, len(windows)) is trace


def test_what_is_left_of_a_block_is_drawn_by_chance() -> None:
    """Not its begin always, where mail has only just come."""
    rng = np.random.default_rng(2)
    trace = in_halves(simulated(Clock.RENEWAL, 64.0, 4_000, rng), rng)
    windows = cut(trace, 8)
    half = judge.thinned(trace, 8, rng, len(windows) // 2)
    kept = half.rows["block"][windows.index[0, :, 0]] != NO_BLOCK
    begins = {
        int(np.flatnonzero(kept[windows.block == block])[0])
        for block in np.unique(windows.block)
    }
    assert len(begins) > 4


def test_of_blocks_with_one_window_some_are_left_out() -> None:
    rng = np.random.default_rng(2)
    trace = in_halves(simulated(Clock.RENEWAL, 64.0, 4_000, rng), rng)
    long = int(np.bincount(cut(trace, 2).block).max())
    windows = cut(trace, long)
    fewer = cut(judge.thinned(trace, long, rng, len(windows) // 3), long)
    assert len(fewer) == len(windows) // 3


def test_so_many_windows_are_judged_and_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(judge, "WINDOWS_MOST", 80)
    monkeypatch.setattr(judge, "ATTACKERS", (LikelihoodRatio(),))
    monkeypatch.setattr(judge, "LEAKS", LATE[-1:])
    rng = np.random.default_rng(2)
    trace = in_halves(simulated(Clock.RENEWAL, 64.0, 4_000, rng), rng)
    assert len(cut(trace, 32)) > 80
    for figure in judge.pair(trace, 32, None, rng):
        assert figure.count <= 40  # of either kind
