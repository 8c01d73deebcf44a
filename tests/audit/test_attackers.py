# SPDX-License-Identifier: MIT
"""Each attacker finds what is there, and nothing where nothing is."""

import numpy as np
import pytest

from mesh.audit.attackers import (
    ATTACKERS,
    FOLDS,
    Attacker,
    LateCells,
    Learned,
    LikelihoodRatio,
    folds,
    placed,
)
from mesh.audit.features import STRETCHES_MIN, cut
from mesh.audit.planting import GUARD_CELLS, late, late_acks, missing, thrown
from mesh.audit.simulated import burst, noisy, simulated
from mesh.audit.statistics import Measured, auc, measured
from mesh.audit.trace import Trace, joined
from mesh.core.clock import Clock

CELLS = 32
QUICK = (Learned(30), LikelihoodRatio(), LateCells())
BROAD = pytest.mark.parametrize("attacker", QUICK[:2], ids=lambda each: each.name)
"""Those that look for more than lateness."""
ANY = pytest.mark.parametrize("attacker", QUICK, ids=lambda each: each.name)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def labelled(clock: Clock, windows: int = 120, seed: int = 0) -> Trace:
    draws = rng(seed)
    count = windows * (CELLS + GUARD_CELLS)
    return thrown(simulated(clock, 64.0, count, draws, noisy(draws)), CELLS, draws)


def tried(attacker: Attacker, trace: Trace, seed: int = 1) -> Measured:
    draws, windows = rng(seed), cut(trace, CELLS)
    matrix = attacker.see(windows, draws)
    score = attacker.tell(matrix, windows.label, windows.block, draws)
    return measured(score, windows.label, windows.block, draws, 300)


@ANY
@pytest.mark.parametrize(
    ("clock", "seconds"),
    [
        (Clock.RENEWAL, 5e-3),
        (Clock.SLOTTED, 5e-3),
        (Clock.POISSON, 5e-3),
        (Clock.CONSTANT, 0.2e-3),
    ],
)
def test_lateness_is_found(attacker: Attacker, clock: Clock, seconds: float) -> None:
    found = tried(attacker, late(seconds, labelled(clock), rng()))
    assert found.found
    assert found.value > 0.8


@ANY
@pytest.mark.parametrize("clock", [Clock.RENEWAL, Clock.SLOTTED])
def test_nothing_is_found_where_nothing_is(attacker: Attacker, clock: Clock) -> None:
    assert tried(attacker, labelled(clock)).null


@BROAD
def test_late_acks_are_found(attacker: Attacker) -> None:
    assert tried(attacker, late_acks(1e-3, labelled(Clock.RENEWAL), rng())).value > 0.98


@BROAD
def test_missing_cells_are_found_on_a_ruler(attacker: Attacker) -> None:
    found = tried(attacker, missing(0.05, labelled(Clock.CONSTANT), rng()))
    assert found.found


@ANY
def test_a_link_without_a_clock_is_open(attacker: Attacker) -> None:
    trace = labelled(Clock.GREEDY)
    # Bursts make cells, so the old blocks are cut into windows again.
    rows = burst(trace.rows, trace.rows["busy"], 0.5, rng())
    assert tried(attacker, trace.with_rows(rows)).value > 0.98


def test_cells_of_one_instant_are_not_impossible() -> None:
    """More of them than there are latenesses, in one window."""
    trace = labelled(Clock.RENEWAL, 10)
    rows = trace.rows.copy()
    rows["gap"][40:80] = 0.0
    seen = LikelihoodRatio().see(cut(trace.with_rows(rows), CELLS), rng())
    assert np.isfinite(seen).all()


@BROAD
def test_scores_are_given_to_all_but_the_first_fold(attacker: Attacker) -> None:
    draws = rng(2)
    label = np.arange(200) % 2 == 0
    matrix = draws.normal(0, 1, (200, 3)) + 3 * label[:, None]
    score = attacker.tell(matrix, label, np.arange(200), draws)
    given = ~np.isnan(score)
    assert given.sum() == 200 - 200 // FOLDS
    assert auc(score, label) > 0.95
    assert score[given].min() > 0
    assert score[given].max() < 1


def test_a_null_strays_as_far_as_the_bootstrap_says() -> None:
    """With folds that train on each other it would be the root of 2 further."""
    draws, attacker, count = rng(3), LikelihoodRatio(), 120
    label, strays = np.arange(count) % 2 == 0, []
    for _ in range(100):
        matrix = draws.normal(0, 1, (count, 10))
        score = attacker.tell(matrix, label, np.arange(count), draws)
        found = measured(score, label, np.arange(count), draws, 100)
        strays.append((found.signed - 0.5) / found.error)
    assert np.std(strays) < 1.2  # 1; its own deviation is 0.07
    assert abs(np.mean(strays)) < 0.35


def test_one_column_is_weighed_as_fisher_would() -> None:
    """Two normals in two columns: the AUC of the best sum of both has a closed form."""
    draws, count = rng(4), 4_000
    label = np.arange(count) % 2 == 0
    matrix = draws.normal(0, 1, (count, 2)) + np.array([0.3, -0.4]) * label[:, None]
    matrix[:, 1] *= 100
    score = LikelihoodRatio().tell(matrix, label, np.arange(count), draws)
    assert auc(score, label) == pytest.approx(0.6382, abs=0.02)  # Phi(0.5 / sqrt 2)


def test_few_windows_of_many_terms_are_not_lost_in_noise() -> None:
    aucs = []
    for seed in range(8):
        draws, label = rng(seed), np.arange(120) % 2 == 0
        matrix = draws.normal(0, 1, (120, 60))
        matrix[:, 7] += 2.5 * label  # alone: Phi(2.5 / sqrt 2) = 0.96
        score = LikelihoodRatio().tell(matrix, label, np.arange(120), draws)
        aucs.append(auc(score, label))
    assert np.mean(aucs) > 0.75


def test_folds_keep_blocks_whole_and_never_look_ahead() -> None:
    block = np.repeat(np.arange(60), 5)
    label = block % 2 == 0
    tested = np.zeros(300, np.int64)
    before = np.zeros(300, bool)
    for train, test in folds(label, block, rng()):
        assert not (train & test).any()
        assert not set(block[train]) & set(block[test])
        assert len(set(label[train])) == len(set(label[test])) == 2
        assert (train >= before).all()
        before = train | test
        tested += test
    assert before.all()
    assert tested.max() == 1
    assert (tested == 0).sum() == 300 // FOLDS


def test_folds_keep_units_of_both_kinds_whole() -> None:
    unit = np.repeat(np.arange(40), 6)
    label = np.arange(240) % 2 == 0
    for train, test in folds(label, unit, rng()):
        assert not set(unit[train]) & set(unit[test])
        assert len(set(label[train])) == len(set(label[test])) == 2


def test_the_look_of_a_link_tells_nothing_of_its_blocks() -> None:
    """Were some of a link's blocks learned from, the rest would be guessed wrongly."""
    draws = rng(3)
    links, blocks = 60, 8
    link = np.repeat(np.arange(links), blocks)
    label = np.concatenate(
        [draws.permutation(np.arange(blocks) % 2 == 0) for _ in range(links)]
    )
    look = draws.normal(size=(links, 4))[link]
    whole, parts = (
        auc(Learned(30).tell(look, label, unit, draws), label)
        for unit in (link, np.arange(len(link)))
    )
    assert abs(whole - 0.5) < 0.04
    assert parts < 0.45


def links(count: int, blocks: int) -> Trace:
    """So many simulated ones, one after the other."""
    draws = rng(4)
    pieces, end = [], 0.0
    for _ in range(count):
        rows = simulated(Clock.RENEWAL, 64.0, 40 * blocks, draws).rows.copy()
        rows["at"] += end - rows["at"][0]
        end = rows["at"][-1] + 60.0
        rows["block"] = np.minimum(
            np.arange(len(rows)) * blocks // len(rows), blocks - 1
        )
        rows["busy"] = rows["block"] % 2 == 0
        pieces.append(rows)
    plain = simulated(Clock.RENEWAL, 64.0, 40, draws)
    return joined(plain.with_rows(rows) for rows in pieces)


def test_a_unit_is_a_link_where_there_are_many_else_a_block() -> None:
    many, few = (
        cut(links(count, 4), 8) for count in (STRETCHES_MIN, STRETCHES_MIN - 1)
    )
    unit = many.unit(many.label)
    assert len(set(unit)) == STRETCHES_MIN
    assert len(set(many.block)) == 4 * STRETCHES_MIN
    for link in set(unit):
        assert len(set(many.block[unit == link])) == 4
    assert (few.unit(few.label) == few.block).all()
    some = many.those(many.label)
    coin = np.arange(len(some)) % 2 == 0
    assert (some.unit(coin) == unit[many.label]).all()
    assert some.label.all()


def test_a_link_is_no_unit_where_most_have_mail_never_or_always() -> None:
    """A node that is up on so many nights, and has mail in one: one unit is no fold."""
    many = cut(links(STRETCHES_MIN + 5, 4), 8)
    night = many.unit(many.label)
    mail = (night == night[0]) & many.label
    assert (many.unit(mail) == many.block).all()
    assert list(folds(mail, many.unit(mail), rng()))


def test_late_cells_reach_what_the_exact_filter_reaches() -> None:
    """1 ms in 128 cells at 64 a second: 0.743 (whitebox.exact, both laws known)."""
    draws, cells = rng(6), 128
    plain = simulated(Clock.RENEWAL, 64.0, 500 * (cells + GUARD_CELLS), draws)
    windows = cut(late(1e-3, thrown(plain, cells, draws), draws), cells)
    attacker = LateCells()
    matrix = attacker.see(windows, draws)
    score = attacker.tell(matrix, windows.label, windows.block, draws)
    assert auc(score, windows.label) == pytest.approx(0.743, abs=0.06)


def test_folds_need_two_blocks_of_each_kind() -> None:
    with pytest.raises(ValueError, match="two blocks"):
        list(folds(np.array([True, False, False]), np.arange(3), rng()))


def test_places_lie_between_none_and_all() -> None:
    assert placed(np.array([5.0, 1.0, 5.0, 9.0])).tolist() == [0.5, 0.125, 0.5, 0.875]


def test_names_differ() -> None:
    assert {each.name for each in ATTACKERS} == {
        Learned.name,
        LikelihoodRatio.name,
        LateCells.name,
    }
