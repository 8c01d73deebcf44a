# SPDX-License-Identifier: MIT
"""What is planted is there and nothing else; labels are thrown for whole windows."""

import numpy as np
import pytest

from mesh.audit.attackers import LateCells, LikelihoodRatio
from mesh.audit.features import cut
from mesh.audit.planting import (
    GUARD_CELLS,
    LATE,
    OTHERS,
    TOGETHER,
    Found,
    late,
    late_acks,
    marked,
    missing,
    moved,
    planted,
    search,
    smallest,
    stalls,
    thrown,
)
from mesh.audit.simulated import simulated
from mesh.audit.statistics import Measured
from mesh.audit.trace import NO_BLOCK, Floats, Trace, by_time
from mesh.core.clock import Clock

CELLS = 16
WINDOWS = 60


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.fixture(scope="module")
def plain() -> Trace:
    return simulated(Clock.RENEWAL, 64.0, WINDOWS * (CELLS + GUARD_CELLS), rng())


@pytest.fixture(scope="module")
def trace(plain: Trace) -> Trace:
    return thrown(plain, CELLS, rng(1))


def gaps_of(trace: Trace) -> Floats:
    at: Floats = np.diff(trace.of(0)["at"])
    return at


def test_thrown_labels_are_a_windows_and_half_of_them_busy(trace: Trace) -> None:
    windows = cut(trace, CELLS)
    assert len(windows) == WINDOWS
    assert windows.label.sum() == WINDOWS / 2
    assert len(np.unique(windows.block)) == WINDOWS
    for side in (0, 1):
        busy, block = (windows.of(side, name) for name in ("busy", "block"))
        assert (busy == windows.label[:, None]).all()
        assert (block == windows.block[:, None]).all()
        assert (np.diff(windows.index[side], axis=1) > 0).all()


def test_what_lies_between_windows_is_never_busy(plain: Trace) -> None:
    odd = plain.only(np.arange(len(plain.rows)) < len(plain.rows) - 10)
    for seed in range(6):
        rows = thrown(odd, CELLS - 1, rng(seed)).rows
        between = rows["block"] == NO_BLOCK
        assert between.any()
        assert not rows["busy"][between].any()


def test_they_lie_within_the_old_blocks_and_idle_ones_if_asked(plain: Trace) -> None:
    old = np.arange(len(plain.rows)) // 400 - 1  # the first ones lie in none
    labelled = plain.with_labels(old, old % 2 == 1)
    new = thrown(labelled, CELLS, rng())
    inside = new.rows["block"] != NO_BLOCK
    assert not inside[:400].any()
    for block in np.unique(new.rows["block"][inside]):
        assert len(np.unique(old[new.rows["block"] == block])) == 1
    quiet = thrown(labelled, CELLS, rng(), idle_only=True)
    assert (old[quiet.rows["block"] != NO_BLOCK] % 2 == 0).all()
    assert 0 < len(cut(quiet, CELLS)) < len(cut(new, CELLS))


def test_a_block_of_just_one_window_is_used_without_a_guard(plain: Trace) -> None:
    mine = plain.only(np.arange(len(plain.rows)) < 70)
    block = np.arange(70) // 35
    assert len(cut(thrown(mine.with_labels(block, block > 1), 15, rng()), 15)) == 2
    with pytest.raises(ValueError, match="no two windows"):
        thrown(mine, 60, rng())


def test_late_cells_are_late_by_their_mean_and_others_are_not(trace: Trace) -> None:
    planted = late(1e-3, trace, rng())
    rows = planted.of(0)
    shift = rows["at"] - trace.of(0)["at"]
    busy = rows["busy"]
    assert shift[busy].mean() == pytest.approx(1e-3, rel=0.15)
    assert (shift >= 0).all()
    assert (planted.of(1)["at"] == trace.of(1)["at"]).all()
    assert rows["gap"][1:] == pytest.approx(gaps_of(planted))


def in_piles(trace: Trace, share: float) -> Trace:
    """Some cells wait for the one before and leave 20 to 40 us behind it, as on a busy host."""
    rows = trace.rows.copy()
    chance = rng(7)
    for side in (0, 1):
        mine = np.flatnonzero(rows["side"] == side)
        held = chance.random(len(mine)) < share
        held[0] = False
        at = rows["at"][mine]
        for place in np.flatnonzero(held).tolist():
            at[place] = at[place - 1] + chance.uniform(20e-6, 40e-6)
        rows["at"][mine], rows["gap"][mine[1:]] = at, np.diff(at)
    return trace.with_rows(by_time(rows))


@pytest.mark.parametrize("mean", [50e-6, 1e-3, 20e-3])
def test_who_looks_at_small_gaps_does_not_see_how_it_was_planted(
    plain: Trace, mean: float
) -> None:
    """What left in one go does so still, and no two cells leave nearer than others do."""
    piled = in_piles(plain, 0.2)
    trace = thrown(piled, CELLS, rng(1))
    planted = late(mean, trace, rng(2))
    assert (planted.of(0)["at"] > trace.of(0)["at"]).any()
    before, after = gaps_of(trace), gaps_of(planted)
    near = before < TOGETHER
    assert near.sum() > 100
    busy = trace.of(0)["busy"]
    whole = busy[1:] == busy[:-1]  # a pile that lies within a window, or without
    assert after[near & whole] == pytest.approx(before[near & whole], abs=1e-6)
    small = after[after < TOGETHER]
    assert small.min() >= before.min() - 1e-6
    assert len(np.unique(small)) > 0.5 * len(small)  # not all of one length


def test_without_piles_cells_that_are_caught_up_with_leave_apart(trace: Trace) -> None:
    gaps = gaps_of(late(20e-3, trace, rng(2)))
    near = gaps[gaps < TOGETHER]
    assert len(near) > 50
    assert near.min() > 0.0
    assert near.mean() == pytest.approx(TOGETHER / 2, rel=0.2)


def test_a_stall_holds_up_what_follows(trace: Trace) -> None:
    planted = stalls(0.05, trace, rng())
    shift = planted.of(0)["at"] - trace.of(0)["at"]
    assert shift.max() == pytest.approx(20e-3, abs=1e-3)
    assert ((shift > 1e-6) & (shift < 19e-3)).any()
    assert (planted.of(0)["gap"][1:] >= 0).all()
    assert planted.of(0)["gap"][1:] == pytest.approx(gaps_of(planted))


def test_missing_cells_leave_a_double_gap(trace: Trace) -> None:
    planted = missing(0.1, trace, rng())
    gone = len(trace.rows) - len(planted.rows)
    assert gone == pytest.approx(0.1 * marked(trace).sum(), rel=0.5)
    assert len(planted.of(1)) == len(trace.of(1))
    assert planted.of(0)["gap"][1:] == pytest.approx(gaps_of(planted))
    assert np.isnan(planted.of(0)["gap"][0])
    assert len(cut(planted, CELLS)) > 0.9 * WINDOWS  # the guard stands in


def test_late_acks_touch_nothing_else(trace: Trace) -> None:
    planted = late_acks(1e-3, trace, rng())
    more = planted.rows["ack_delay"] - trace.rows["ack_delay"]
    assert more == pytest.approx(np.where(marked(trace), 1e-3, 0.0))
    assert (planted.rows["at"] == trace.rows["at"]).all()


def test_no_shift_no_change(trace: Trace) -> None:
    same = moved(trace, np.zeros(len(trace.rows)), rng())
    assert same.rows.tobytes() == trace.rows.tobytes()


def test_the_search_and_the_smallest(plain: Trace) -> None:
    attacker = LikelihoodRatio()
    found = list(search(plain, CELLS, [attacker], rng(), (*LATE[2:], OTHERS[2])))
    assert [each.leak.name for each in found] == [
        "1 ms late", "5 ms late", "ACKs 1 ms late",
    ]  # fmt: skip
    assert found[1].auc.found
    assert found[2].auc.signed > 0.99
    assert smallest(found, attacker) in ("1 ms late", "5 ms late")


@pytest.mark.parametrize(
    ("aucs", "name"),
    [
        ((0.5, 0.5, 0.5, 0.5), ""),
        ((0.5, 0.5, 0.8, 0.9), "1 ms late"),
        ((0.9, 0.5, 0.5, 0.9), "5 ms late"),  # the first one by chance
        ((0.9, 0.9, 0.9, 0.5), ""),
    ],
)
def test_the_smallest_is_found_with_all_above_it(
    aucs: tuple[float, ...], name: str
) -> None:
    attacker = LikelihoodRatio()
    found = [
        Found(leak, attacker, Measured(auc, auc, 0.02, auc, 100), ())
        for leak, auc in zip(LATE, aucs, strict=True)
    ]
    assert smallest(found, attacker) == name
    assert smallest(found, LikelihoodRatio()) == ""


def test_at_a_low_load_the_leak_is_in_so_many_cells_and_the_labels_stay() -> None:
    many = thrown(simulated(Clock.RENEWAL, 64.0, 20_000, rng()), CELLS, rng(1))
    busy = many.rows["busy"] & (many.rows["side"] == 0)
    for load in (0.1, 0.5, 1.0):
        new = planted(OTHERS[2], many, rng(2), load)
        assert (new.rows["busy"] == many.rows["busy"]).all()
        assert (new.rows["block"] == many.rows["block"]).all()
        later = new.rows["ack_delay"] > many.rows["ack_delay"]
        assert not later[~busy].any()
        known = busy & ~np.isnan(many.rows["ack_delay"])
        assert later[known].mean() == pytest.approx(load, abs=0.03)
    gone = planted(OTHERS[1], many, rng(2), 0.5)
    kept = np.isin(gone.rows["block"], np.unique(many.rows["block"][many.rows["busy"]]))
    assert (gone.rows["busy"] == kept).all()


def test_a_search_at_a_low_load_finds_less() -> None:
    many = simulated(Clock.RENEWAL, 64.0, 400 * (CELLS + GUARD_CELLS), rng())
    full, tenth = (
        next(search(many, CELLS, [LateCells()], rng(), LATE[-1:], load)).auc.signed
        for load in (1.0, 0.1)
    )
    assert tenth < (full + 0.5) / 2
