# SPDX-License-Identifier: MIT
import io
import re
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from benchmarks.result import Chart, Figure, Report, Result, Series
from benchmarks.sheet import sheet
from benchmarks.show import show
from mesh.audit.page import DOTS_MAX, STEPS_MAX, TICKS_MAX, chart, steps, thinned
from tests.benchmarks.reports import reports

RATE = Figure(
    "rate", "messages/s",
    (Series("mesh", (1000.0, 1100.0, 900.0)), Series("other", (100.0, 110.0, 90.0))),
    10, of_rival=True,
)  # fmt: skip
TELLING = Report(
    "1.0",
    {"processor": "<fast>"},
    False,
    (
        Result(
            "relay", "Relay & more", (RATE,),
            (Chart("over time", "s", {"<a>": [(0.0, 1.0), (1.0, 2.0)]}, linear=True),),
            {"other": "version 3"}, ("a note",),
        ),
        Result("spool", "The spool", failure="it broke"),
    ),
)  # fmt: skip


def printed(report: Report) -> str:
    out = io.StringIO()
    show(report, Console(file=out, width=200))
    return out.getvalue()


def test_a_terminal_hears_all_of_it() -> None:
    told = printed(TELLING)
    for said in (
        "<fast>", "Relay & more", "1,000 (900..1,100)", "100 (90..110)", "10x (10..10)",
        ">= 10x", "holds", "a note", "version 3", "spool: no result: it broke",
        "1 of 1 figures with a bound hold, failed: spool",
    ):  # fmt: skip
        assert said in told, said


def test_a_page_has_all_of_it_and_fetches_nothing() -> None:
    told = sheet(TELLING)
    for said in (
        "&lt;fast&gt;", "Relay &amp; more", "1,000 (900..1,100)", "&gt;= 10x", "a note",
        "version 3", "no result: it broke", "&lt;a&gt;", "<svg",
    ):  # fmt: skip
        assert said in told, said
    assert not re.search(r"<script|<link|src=|https?:", told)


def test_what_there_is_of_a_part_that_failed_is_told() -> None:
    result = Result("relay", "Relay", (RATE,), failure="it ended")
    report = Report("1.0", {}, False, (result,))
    for told in (printed(report), sheet(report)):
        assert "1,000 (900..1,100)" in told
        assert "not all of it: it ended" in told


def test_a_long_curve_is_a_line_without_dots() -> None:
    def drawn(count: int) -> str:
        return chart(
            "t", "s", {"a": [(float(x), 1.0) for x in range(count)]}, linear=True
        )

    assert drawn(DOTS_MAX).count("<circle") == DOTS_MAX
    assert "<circle" not in drawn(DOTS_MAX + 1)
    assert "polyline" in drawn(DOTS_MAX + 1)


@settings(max_examples=25)
@given(reports)
def test_every_report_can_be_shown(report: Report) -> None:
    assert report.summary.split(",")[0] in printed(report).replace("\n", " ")
    assert "<script" not in sheet(report)


@given(st.lists(st.floats(1, 1e6), min_size=2, max_size=300, unique=True).map(sorted))
def test_numbers_below_an_axis_can_be_read(ticks: list[float]) -> None:
    chosen = thinned(ticks, float)
    assert chosen[0] == ticks[0]
    assert chosen[-1] == ticks[-1]
    assert set(chosen) <= set(ticks)
    assert len(chosen) <= TICKS_MAX + 1
    apart = (ticks[-1] - ticks[0]) / TICKS_MAX
    assert all(after - before >= apart for before, after in pairwise(chosen))


@given(st.floats(1e-6, 1e6), st.floats(1, 1e9))
def test_values_on_the_axis_upwards_lie_between_its_ends(low: float, by: float) -> None:
    found = steps(low, low * by, logarithmic=True)
    assert len(found) <= STEPS_MAX
    assert all(2 * low <= value <= low * by / 2 for value in found)
    assert steps(0, by, logarithmic=False) == [by / 2]
