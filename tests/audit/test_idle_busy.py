# SPDX-License-Identifier: MIT
"""Figures of a link that tells nothing, and of one that tells."""

import numpy as np
import pytest

from mesh.audit.attackers import LateCells, Learned, LikelihoodRatio
from mesh.audit.figures import Figure
from mesh.audit.idle_busy import from_counts, idle_busy, wanted
from mesh.audit.planting import GUARD_CELLS, LATE, OTHERS, late, thrown
from mesh.audit.simulated import noisy, simulated
from mesh.audit.trace import Trace
from mesh.core.clock import Clock

CELLS = 32
QUICK = (Learned(30), LikelihoodRatio(), LateCells())


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.fixture(scope="module")
def trace() -> Trace:
    draws = rng()
    count = 160 * (CELLS + GUARD_CELLS)
    plain = simulated(Clock.RENEWAL, 64.0, count, draws, noisy(draws))
    return thrown(plain, CELLS, draws)


@pytest.fixture(scope="module")
def figures(trace: Trace) -> list[Figure]:
    return idle_busy(trace, CELLS, rng(1), QUICK, leaks=(LATE[3], OTHERS[2]))


def test_each_attacker_has_an_auc_and_bits(figures: list[Figure]) -> None:
    assert [(each.attacker, each.unit) for each in figures] == [
        (attacker.name, unit) for attacker in QUICK for unit in ("AUC", "bit")
    ]
    for each in figures:
        assert each.count == 80
        assert each.value <= each.upper
        assert "32 cells" in each.name


def test_a_clean_link_is_shown_to_be_one(figures: list[Figure]) -> None:
    for each in figures:
        assert [control.name for control in each.controls] == [
            "5 ms late", "labels shuffled", "idle against idle",
        ]  # fmt: skip
        assert each.shown
        assert each.smallest == "5 ms late"
        assert each.upper < (0.72 if each.unit == "AUC" else 0.15)
    assert "ACKs 1 ms late" in figures[0].note
    assert "also found: nothing" in figures[4].note  # late cells alone are looked for


def test_a_leak_is_a_figure_near_one(trace: Trace) -> None:
    leaky = late(8e-3, trace, rng())
    for each in idle_busy(leaky, CELLS, rng(), QUICK[1:2], LATE[3:]):
        assert each.value > (0.9 if each.unit == "AUC" else 0.5)


def test_what_has_to_be_found() -> None:
    assert wanted(128, 6_200).name == "1 ms late"
    assert wanted(128, 6_199).name == "5 ms late"
    assert wanted(1_024, 1_000).name == "0.2 ms late"
    assert wanted(3_600, 999).name == "5 ms late"


def test_a_trace_of_one_kind_has_no_figure(trace: Trace) -> None:
    idle = trace.only(~trace.rows["busy"])
    with pytest.raises(ValueError, match="two blocks"):
        idle_busy(idle, CELLS, rng(), QUICK[1:2], ())


def test_figures_of_a_pacers_counts() -> None:
    idle, busy = [0] * 32, [0] * 32
    idle[5:8], busy[5:8] = (20_000, 60_000, 20_000), (18_000, 58_000, 24_000)
    auc, bits = from_counts(Clock.RENEWAL, idle, busy, rng(), ((64.0, 64),))
    assert (auc.unit, bits.unit) == ("AUC", "bit")
    for each in (auc, bits):
        assert each.shown
        assert each.value <= each.upper
        assert each.count == 100_000
        assert "64 cells at 64/s" in each.name
    assert 0.5 < auc.upper < 0.502
    noise = float(auc.note.split()[-3].rstrip(","))
    assert 0.5 <= noise < auc.upper
