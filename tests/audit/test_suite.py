# SPDX-License-Identifier: MIT
"""From pieces in a folder to a report; without a lab."""

import shutil
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mesh.audit import judge, pieces, probing, schedule, suite
from mesh.audit.bounds import PROBES
from mesh.audit.cells import Block
from mesh.audit.figures import Figure
from mesh.audit.lab import Captured
from mesh.audit.report import read, written
from mesh.audit.schedule import HOURS_FROM, Schedule
from mesh.audit.simulated import burst
from mesh.audit.trace import Event, Trace
from mesh.audit.worlds import Plan
from tests.audit.links import RATE, cheaply, link

FULL = Plan(rate=RATE).octets_a_second
WIRE = "alpha-bravo"


def bare(seed: int) -> Trace:
    """One without cover: mail shows in how many cells there are."""
    one = replace(link(seed), clock="greedy")
    rng = np.random.default_rng(seed)
    return one.with_rows(burst(one.rows, one.rows["busy"], 0.5, rng))


def captured(one: Trace, begin: float = 1e6, full: float = 0.0) -> Captured:
    """As the lab gives it, at some hour; busy blocks carry this share of all they can."""
    rows = one.rows.copy()
    rows["at"] += begin
    edges = [0, *(np.flatnonzero(np.diff(rows["block"])) + 1), len(rows)]
    blocks = [
        Block(float(rows["at"][a]), float(rows["at"][b - 1]), bool(rows["busy"][a]))
        for a, b in pairwise(edges)
    ]
    events = [Event(begin, 9, f"{begin}", "in", "alpha"), Event(begin + 2, 9, f"{begin}", "out", "bravo")]  # fmt: skip
    for number, block in enumerate(block for block in blocks if block.busy and full):
        size = round(full * (block.end - block.begin) * FULL)
        middle, ident = (block.begin + block.end) / 2, f"{begin} {number}"
        events.append(Event(middle, size, ident, "in", "alpha"))
        events.append(Event(middle + 1e-3, size, ident, "out", "bravo"))
    return Captured({WIRE: one.with_rows(rows)}, events, blocks)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Pieces of two worlds; nothing is taken any more, and only short windows judged."""
    monkeypatch.setattr(schedule, "LENGTHS", (32, 3_600))
    cheaply(monkeypatch)
    monkeypatch.setattr(schedule, "WORLDS", (schedule.QUIET, schedule.GREEDY))
    for key, make in (("quiet", link), ("greedy", bare)):
        (tmp_path / f"{key}-0").mkdir()
        captured(make(1)).save(tmp_path / f"{key}-0" / "piece-0000")
    return tmp_path


def hush(_: str, __: float) -> None:
    """Nobody listens."""


def test_a_folder_s_pieces_become_figures_with_controls(folder: Path) -> None:
    report = suite.judged(Schedule(2), folder, hush)
    assert report.figures
    assert {figure.world for figure in report.figures} == {"pair, renewal, 256 cells/s"}
    for figure in report.figures:
        if figure.unit == "AUC":
            (control,) = (c for c in figure.controls if c.name == "without cover")
            assert control.found
            assert control.value > 0.9
            assert figure.bound is not None
            assert figure.upper < figure.bound < 1
    assert [wire.world for wire in report.wires] == [
        "pair, renewal, 256 cells/s", "pair, greedy: no cover",
    ]  # fmt: skip
    (cover, no_cover) = report.costs
    assert cover.gigabytes == pytest.approx(256 * 0.354, rel=0.01)
    assert no_cover.gigabytes == 0
    assert any("3,600 cells" in note for note in report.notes)
    assert any("busy, it carried 0%" in note for note in report.notes)
    assert read(written(report)) == report


@pytest.mark.parametrize("share", [0.1, 0.3])
def test_busy_blocks_without_mail_show_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch, share: float
) -> None:
    """Those of a link that was to be half full; what was judged before tells it, too."""
    half = replace(schedule.QUIET, plan=Plan(load=0.5))
    monkeypatch.setattr(schedule, "WORLDS", (half, schedule.GREEDY))
    late = [10_000 if bucket == 6 else 0 for bucket in range(32)]
    mine = captured(link(1), full=share / 2)
    piece = folder / "quiet-0" / "piece-0000"
    shutil.rmtree(piece)
    replace(mine, late={"idle": late, "busy": late}).save(piece)
    for _ in range(2):
        figures = suite.judged(Schedule(2), folder, hush).figures
        assert {figure.attacker for figure in figures} == {
            "likelihood ratio",
            "white box",
        }
        assert any(
            f"planted in {share / 2:.0%} of the cells" in figure.note
            for figure in figures
        )
        for figure in figures:
            (mail,) = (c for c in figure.controls if c.name == "mail was there")
            assert mail.value == pytest.approx(share, rel=0.1)
            assert mail.found == (share > judge.MAIL_LEAST)
            assert mail.found or figure.verdict == "not shown"


def test_what_was_judged_is_not_judged_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = suite.judged(Schedule(2), folder, hush)
    asked: list[int] = []
    pair: Any = judge.pair

    def ask(*args: Any) -> Any:
        asked.append(1)
        return pair(*args)

    monkeypatch.setattr(judge, "pair", ask)
    assert suite.judged(Schedule(2), folder, hush) == before
    assert not asked
    captured(link(2), 2e6).save(folder / "quiet-0" / "piece-0001")
    after = suite.judged(Schedule(2), folder, hush)
    assert asked
    assert min(figure.count for figure in after.figures) > max(
        figure.count for figure in before.figures
    )


def test_in_a_run_of_hours_a_figure_that_is_not_made_is_missing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blocks of a minute have room for 1,024 cells, those of five seconds have none."""
    monkeypatch.setattr(schedule, "LENGTHS", (32, 1_024))
    title = "pair, renewal, 64 cells/s"
    whole = schedule.whole(1).minutes
    report = suite.judged(Schedule(whole), folder, hush)
    assert report.missing == (
        f"{title}: 1,024 cells (0 idle, 0 busy)", f"{title}: a white box (0 cells counted)",
    )  # fmt: skip
    assert not any("few" in note for note in report.notes)
    assert report == read(written(report))
    briefly = replace(schedule.QUIET, most=schedule.BRIEF_SECONDS)
    worlds = (briefly, schedule.GREEDY, schedule.CHAIN)
    monkeypatch.setattr(schedule, "WORLDS", worlds)
    report = suite.judged(Schedule(whole), folder, hush)
    assert report.missing == (
        f"{title}: a white box (0 cells counted)",
        "chain, renewal, 64 cells/s: nothing was taken",
    )
    assert f"{title}: too few windows of 1,024 cells (0 idle, 0 busy)" in report.notes
    assert suite.judged(Schedule(2), folder, hush).missing == ()


def test_a_chain_without_its_control_is_missing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schedule, "WORLDS", (schedule.CHAIN,))
    (folder / "quiet-0").rename(folder / "chain-0")
    for minutes, count in ((2, 0), (HOURS_FROM, 1)):
        report = suite.judged(Schedule(minutes), folder, hush)
        assert len(report.missing) == count
        assert any("plain SMTP" in each for each in (*report.missing, *report.notes))


def test_a_run_of_hours_has_as_many_probes_as_are_promised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def count(number: int, _: np.random.Generator) -> list[Figure]:
        asked.append(number)
        return []

    monkeypatch.setattr(schedule, "WORLDS", (schedule.QUIET, schedule.PROBED))
    monkeypatch.setattr(probing, "figures", count)
    for minutes in (1, HOURS_FROM):
        (tmp_path / f"{minutes}").mkdir()
        suite.judged(Schedule(minutes), tmp_path / f"{minutes}", hush)
    assert asked[0] < PROBES.enough <= asked[1]


@pytest.mark.parametrize("blocks", [None, 1])
def test_pieces_never_meet(blocks: int | None) -> None:
    """Those that were made side by side, too: no window reaches across.

    Nor where mail came long after the last block, and the wire was still looked at.
    """
    taken = [captured(link(1), 5.0), captured(link(2), 6.0)]
    taken = [replace(piece, blocks=piece.blocks[:blocks]) for piece in taken]
    one, other = pieces.apart(taken)
    end = one.traces[WIRE].rows["at"][-1]
    assert other.traces[WIRE].rows["at"][0] - end > pieces.APART_SECONDS / 2
    for before, after in zip(taken, (one, other), strict=True):
        shift = after.blocks[0].begin - before.blocks[0].begin
        assert after.events[0].at - before.events[0].at == pytest.approx(shift)
        moved = after.traces[WIRE].rows["at"] - before.traces[WIRE].rows["at"]
        assert moved == pytest.approx(shift)
        assert after.blocks[-1].busy == before.blocks[-1].busy


# a capture of somebody's link
