# SPDX-License-Identifier: MIT
"""A report says the same as text, as JSON that its schema allows, and as a page."""

import json
import math
import re
from dataclasses import asdict, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mesh.audit
from mesh.audit.drawing import POINTS_MAX, Lane, Line, curves, strip, thinned
from mesh.audit.figures import Control, Figure
from mesh.audit.report import (
    WAITS,
    Cost,
    Report,
    Wire,
    duration,
    number,
    price,
    read,
    text,
    written,
)
from mesh.audit.sheet import sheet
from mesh.audit.simulated import instants
from mesh.core.clock import Clock

SCHEMA = json.loads((Path(mesh.audit.__file__).parent / "schema.json").read_text())
VALID = jsonschema.Draft202012Validator(SCHEMA)
WORLD = "pair, renewal, 64 cells/s"
ROC = ((0.0, 0.0), (0.4, 0.5), (1.0, 1.0))
FOUND = Control("greedy", 0.99, "> 0.9", True, ROC)
FIGURE = Figure(
    "idle or busy, 32 cells", "learned", 0.503, 0.517, 0.52, "AUC", 6200, "0.2 ms late",
    (FOUND, Control("labels shuffled", 0.5, "0.5", True)), ROC, "side 0", world=WORLD, rate=64.0,
)  # fmt: skip
COST = Cost(WORLD, "renewal", 64.0, 0.25, 0.004)
WIRE = Wire(WORLD, 2.0, ((0.1, 0), (0.2, 1)), ((0.3, 0), (1.9, 1)))
REPORT = Report(
    "0.1",
    "a <capture>",
    100.0,
    6400,
    (FIGURE,),
    (COST,),
    (WIRE,),
    ("no & x",),
)

TEXTS = st.text(max_size=8)
FLOATS = st.floats() | st.floats(0, 1)
CURVES = st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), max_size=3).map(tuple)
CONTROLS = st.builds(Control, TEXTS, FLOATS, TEXTS, st.booleans(), CURVES)
FIGURES = st.builds(
    Figure, TEXTS, TEXTS, FLOATS, FLOATS, st.none() | st.floats(0, 1), TEXTS,
    st.integers(0, 1 << 40), TEXTS, st.lists(CONTROLS, max_size=2).map(tuple), CURVES,
    TEXTS, st.booleans(), st.sampled_from(["", WORLD]), st.floats(0, 4096),
)  # fmt: skip
TICKS = st.lists(st.tuples(st.floats(0, 9), st.sampled_from([0, 1])), max_size=3).map(
    tuple
)
REPORTS = st.builds(
    Report, TEXTS, TEXTS, st.floats(0, 1e9), st.integers(0, 1 << 40),
    st.lists(FIGURES, max_size=3).map(tuple),
    st.sampled_from([(), (COST,), (Cost("", "", 0.0),)]),
    st.lists(st.builds(Wire, TEXTS, st.floats(1, 9), TICKS, TICKS), max_size=1).map(tuple),
    st.lists(TEXTS, max_size=2).map(tuple), st.lists(TEXTS, max_size=2).map(tuple),
)  # fmt: skip


class Page(HTMLParser):
    """What a browser would fetch or run, and what tags stay open."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs


def same(one: Any, other: Any) -> bool:
    """Equal, where what is not finite has become nan."""
    if isinstance(one, float) and not math.isfinite(one):
        return isinstance(other, float) and math.isnan(other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    if isinstance(one, tuple | list):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


@settings(max_examples=20)
@given(REPORTS)
def test_json_is_as_its_schema_says_and_comes_back(report: Report) -> None:
    told = written(report)
    VALID.validate(json.loads(told))
    assert same(asdict(report), asdict(read(told)))


def test_the_schema_is_one_and_forbids_what_it_does_not_name() -> None:
    VALID.check_schema(SCHEMA)
    told = json.loads(written(REPORT))
    for place in (told, told["figures"][0], told["costs"][0], told["wires"][0]):
        place["more"] = 1
        with pytest.raises(jsonschema.ValidationError):
            VALID.validate(told)
        del place["more"]
        name = min(place)
        kept = place.pop(name)
        with pytest.raises(jsonschema.ValidationError):
            VALID.validate(told)
        place[name] = kept
    VALID.validate(told)


def test_numbers_of_numpy_are_numbers() -> None:
    numbers: dict[str, Any] = {"value": np.float32(0.5), "count": np.int64(7)}
    control: dict[str, Any] = {"value": np.float64("nan"), "found": np.bool_(True)}
    figure = replace(FIGURE, controls=(replace(FOUND, **control),), **numbers)
    told = json.loads(written(replace(REPORT, figures=(figure,))))["figures"][0]
    assert (told["value"], told["count"]) == (0.5, 7)
    assert told["controls"][0]["value"] is None
    assert told["controls"][0]["found"] is True


def test_another_version_is_not_read() -> None:
    with pytest.raises(ValueError, match="another version"):
        read(written(REPORT).replace('"schema": 1', '"schema": 2'))


@settings(max_examples=20)
@given(REPORTS)
def test_the_page_fetches_nothing_and_runs_nothing(report: Report) -> None:
    page = Page()
    page.feed(sheet(report))
    assert not {"script", "link", "img", "iframe", "object"} & set(page.tags)
    assert not {"src", "href", "onload"} & {name for name, _ in page.attributes}


def test_words_of_others_are_words() -> None:
    bad = "</svg><script>x</script>"
    figure = replace(
        FIGURE, name=bad, attacker=bad, smallest=bad, note=bad, unit=bad, world=bad,
        controls=(Control(bad, 1.0, bad, True, ROC),),
    )  # fmt: skip
    cost, wire = Cost(bad, "", 0.0), Wire(bad, 1.0, (), ())
    shown = sheet(Report(bad, bad, 1.0, 1, (figure,), (cost,), (wire,), (bad,)))
    assert "<script" not in shown
    assert "<script" not in strip([Lane(bad, ())], 1.0) + curves(bad, [Line(bad, ROC)])


def test_the_table() -> None:
    assert text(REPORT).splitlines() == [
        "a <capture>",
        "6,400 cells in 100 s",
        "",
        "pair, renewal, 64 cells/s: 22.6 GB a day each way, a cell waits 9.77 ms a hop, "
        "a message took 250 ms, without cover 4 ms",
        "figure                  attacker      n  value   95 %     bound  finds",
        "idle or busy, 32 cells  learned   6,200  0.503  0.517  <= 0.520  0.2 ms late  holds",
        "    controls: greedy 0.990 (> 0.9); labels shuffled 0.500 (0.5)",
        "    side 0",
        "",
        "note: no & x",
        "1 of 1 figures hold",
    ]


def test_what_was_not_found_stands_in_the_table() -> None:
    not_found = replace(FOUND, value=0.5, found=False)
    figure = replace(FIGURE, controls=(not_found,), world="", smallest="", bound=None)
    shown = text(replace(REPORT, figures=(figure, FIGURE), cells=0))
    assert "greedy 0.500 (> 0.9) NOT FOUND" in shown
    assert "not shown" in shown
    assert shown.endswith("1 of 2 figures hold, 1 not shown\n")


@pytest.mark.parametrize(
    ("figures", "holds"),
    [
        ((), False),
        ((FIGURE,), True),
        ((FIGURE, replace(FIGURE, bound=None)), True),
        ((replace(FIGURE, bound=None),), False),
        ((FIGURE, replace(FIGURE, upper=0.6)), False),
        ((FIGURE, replace(FIGURE, controls=())), False),
    ],
)
def test_a_report_holds_when_all_of_it_does(
    figures: tuple[Figure, ...], holds: bool
) -> None:
    assert replace(REPORT, figures=figures).holds == holds


def test_what_is_missing_is_said_and_nothing_holds() -> None:
    report = replace(REPORT, missing=("the & lost",))
    assert REPORT.holds
    assert not report.holds
    assert report.summary == "1 of 1 figures hold, 1 not made"
    assert "not made: the & lost\nnote: no & x\n" in text(report)
    page = sheet(report)
    assert "the &amp; lost" in page
    assert '<b class="missed">1 of 1' in page
    assert "Not made" not in sheet(REPORT)


def test_the_page_has_each_figure_its_cost_and_its_controls() -> None:
    shown = re.sub("<.*?>", " ", sheet(REPORT))
    for words in (
        FIGURE.name, "22.6 GB a day", "greedy 0.990", "0.2 ms late", "a &lt;capture&gt;",
        "no &amp; x", "1 of 1 figures hold",
    ):  # fmt: skip
        assert words in shown
    assert "22.6" not in sheet(replace(REPORT, costs=()))
    assert "Not measured" not in sheet(replace(REPORT, notes=()))
    assert "The wire" not in sheet(replace(REPORT, wires=()))
    assert "Receivers" not in sheet(replace(REPORT, figures=()))


def test_idle_lies_above_busy_on_one_scale() -> None:
    drawn = strip([Lane("idle", [(0.5, 0)]), Lane("busy", [(0.5, 0), (3.0, 1)])], 2.0)
    first, second = (
        tuple(map(float, place))
        for place in re.findall(r'd="M([\d.]+) (\d+)v-12"', drawn)
    )
    assert first[0] == second[0]
    assert first[1] < second[1]
    assert "v12" not in drawn  # past the end of the stretch


def test_a_long_curve_is_thinned_and_keeps_its_ends() -> None:
    points = tuple((n / 999, n / 999) for n in range(1000))
    few = thinned(points)
    assert len(few) == POINTS_MAX
    assert (few[0], few[-1]) == (points[0], points[-1])
    assert thinned(few) == few


@pytest.mark.parametrize("clock", list(WAITS))
def test_the_mean_wait_is_that_of_the_law(clock: Clock) -> None:
    gaps = np.diff(instants(clock, 4.0, 20_000, np.random.default_rng(1)))
    waits = (gaps**2).mean() / (2 * gaps.mean())
    cost = Cost("", clock.name.lower(), 4.0)
    assert cost.mean_wait == pytest.approx(waits, rel=0.03)


def test_where_no_clock_holds_a_cell_back() -> None:
    assert Cost("", "greedy", 4.0).mean_wait is None
    assert price(Cost("", "", 0.0)) == ""
    assert price(Cost("", "greedy", 1.0)) == "0.354 GB a day each way"


def test_numbers_are_short() -> None:
    assert [number(n) for n in (0.0, 0.5, 0.001, math.nan)] == ["0.000", "0.500", "0.001", "?"]  # fmt: skip
    assert [duration(n) for n in (1.5, 0.0123)] == ["1.5 s", "12.3 ms"]
