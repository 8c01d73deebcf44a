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
from mesh.audit.trace import Event
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


def test_of_too_many_windows_some_blocks_are_left_out() -> None:
    rng = np.random.default_rng(2)
    trace = in_halves(simulated(Clock.RENEWAL, 64.0, 4_000, rng), rng)
    windows = cut(trace, 32)
    fewer = cut(judge.thinned(trace, 32, rng, len(windows) // 2), 32)
    assert len(windows) // 4 < len(fewer) <= len(windows) // 2
    some = np.isin(windows.block, fewer.block)
    assert (windows.label[some] == fewer.label).all()
    assert len(cut(judge.thinned(trace, 32, rng, len(windows)), 32)) == len(windows)


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
