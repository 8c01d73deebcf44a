# SPDX-License-Identifier: MIT
"""Figures of a link that tells nothing, and of one that tells."""

from dataclasses import replace

import numpy as np
import pytest

from mesh.audit import idle_busy as audited
from mesh.audit.attackers import LateCells, Learned, LikelihoodRatio
from mesh.audit.features import Windows
from mesh.audit.figures import Figure
from mesh.audit.idle_busy import from_counts, idle_busy, wanted
from mesh.audit.planting import GUARD_CELLS, LATE, OTHERS, Found, late, thrown
from mesh.audit.simulated import noisy, simulated
from mesh.audit.statistics import Measured, measured
from mesh.audit.trace import Bools, Floats, Ints, Trace
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
    assert wanted(128, 6_200, 0.5).name == "5 ms late"
    assert wanted(128, 6_200, 0.6).name == "1 ms late"  # a host that was busy


class Knowing:
    """Is told the answer: what he makes of shuffled labels is as good."""

    name = "knowing"

    def see(self, windows: Windows, rng: np.random.Generator) -> Floats:
        """Nothing."""
        return rng.random((len(windows), 1))

    def tell(
        self, matrix: Floats, label: Bools, unit: Ints, rng: np.random.Generator
    ) -> Floats:
        """The labels."""
        del matrix, unit
        return label + 0.1 * rng.random(len(label))


def test_who_finds_what_is_not_there_shows_nothing(trace: Trace) -> None:
    for figure in idle_busy(trace, CELLS, rng(1), (Knowing(),), leaks=()):
        assert [(each.name, each.found) for each in figure.controls] == [
            ("labels shuffled", False), ("idle against idle", False),
        ]  # fmt: skip


@pytest.mark.parametrize("found", [True, False])
def test_what_is_promised_has_to_be_found_by_one_at_least(
    found: bool, trace: Trace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With as many windows as that; the figure is of the one, found or not, by either."""
    monkeypatch.setattr(audited, "measured", _many)
    one, other = QUICK[1:]
    seen = [
        Found(leak, attacker, Measured(auc, auc, 0.01, auc, 6_200), ())
        for attacker, small in ((one, 0.5), (other, 0.6 if found else 0.501))
        for leak, auc in ((LATE[2], small), (LATE[-1], 0.9))
    ]
    monkeypatch.setattr(audited, "search", lambda *_: seen)
    for figure in idle_busy(trace, CELLS, rng(1), (one,)):
        (control,) = (c for c in figure.controls if c.name.startswith("1 ms late"))
        assert control.name == "1 ms late, late cells"
        assert figure.count == 6_200
        assert figure.shown == control.found == found


def _many(
    score: Floats, label: Bools, block: Ints, rng: np.random.Generator
) -> Measured:
    return replace(measured(score, label, block, rng), count=6_200)


def test_a_trace_of_one_kind_has_no_figure(trace: Trace) -> None:
    idle = trace.only(~trace.rows["busy"])
    with pytest.raises(ValueError, match="two blocks"):
        idle_busy(idle, CELLS, rng(), QUICK[1:2], ())


def test_figures_of_a_pacers_counts() -> None:
    idle, busy = [0] * 32, [0] * 32
    idle[5:8], busy[5:8] = (20_000, 60_000, 20_000), (18_000, 58_000, 24_000)
    auc, bits = from_counts(Clock.RENEWAL, idle, busy, rng(), (64.0, 64))
    assert (auc.unit, bits.unit) == ("AUC", "bit")
    for each in (auc, bits):
        assert each.shown
        assert each.value <= each.upper
        assert each.count == 100_000
        assert "64 cells at 64/s" in each.name
    assert 0.5 < auc.upper < 0.502
    noise = float(auc.note.split()[-3].rstrip(","))
    assert 0.5 <= noise < auc.upper
