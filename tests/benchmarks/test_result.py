# SPDX-License-Identifier: MIT
import json
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import benchmarks
from benchmarks.result import (
    Figure,
    Report,
    Result,
    Series,
    distribution,
    quantile,
    read,
    single,
    written,
)
from tests.benchmarks.reports import reports

SCHEMA = json.loads((Path(benchmarks.__file__).parent / "schema.json").read_text())
OURS = Series("mesh", (90.0, 110.0, 100.0))
GOOD, BAD = Series("good", (9.0, 11.0, 10.0)), Series("bad", (4.0, 5.0, 6.0))


def points(told: object) -> object:
    """As JSON has them: lists for tuples."""
    return json.loads(json.dumps(told))


@settings(max_examples=25)
@given(reports)
def test_json_is_as_the_schema_says_and_comes_back(report: Report) -> None:
    text = written(report)
    jsonschema.validate(json.loads(text), SCHEMA)
    back = read(text)
    assert back.summary == report.summary
    assert points(json.loads(written(back))) == json.loads(text)


def test_one_of_another_version_is_refused() -> None:
    told = json.loads(written(Report("1", {}, False, ())))
    with pytest.raises(ValueError, match="version"):
        read(json.dumps({**told, "schema": 2}))


def test_what_json_has_no_word_for_becomes_nothing() -> None:
    figure = single("x", "s", float("nan"))
    told = json.loads(written(Report("1", {}, False, (Result("a", "A", (figure,)),))))
    jsonschema.validate(told, SCHEMA)
    assert told["results"][0]["figures"][0]["value"] is None


def test_the_best_rival_is_the_one_that_counts() -> None:
    more = Figure("rate", "messages/s", (OURS, BAD, GOOD), 10, of_rival=True)
    assert more.rival == GOOD
    assert more.value == 10
    assert more.verdict == "holds"
    assert replace(more, bound=10.1).verdict == "missed"
    less = Figure("cpu", "us", (OURS, BAD, GOOD), 100, at_least=False)
    assert less.rival == BAD
    assert less.value == 100
    assert less.verdict == "holds"
    assert replace(less, bound=99.0).verdict == "missed"


def test_a_bound_on_a_ratio_without_a_rival_is_not_shown() -> None:
    alone = Figure("rate", "messages/s", (OURS,), 10, of_rival=True)
    assert alone.verdict == "not shown"
    assert replace(alone, bound=None).verdict == "open"
    assert alone.value is None


def test_the_spread_of_a_ratio_is_that_of_the_rounds() -> None:
    figure = Figure("rate", "messages/s", (OURS, GOOD), 10, of_rival=True)
    assert list(figure.spread) == [10, 10]  # each round beside its own
    assert list(replace(figure, of_rival=False).spread) == [90, 110]


def test_the_summary_counts_and_names_what_failed() -> None:
    held = single("a", "s", 1.0, 2.0, at_least=False)
    missed = single("b", "s", 3.0, 2.0, at_least=False)
    unbound = single("c", "s", 3.0)
    unseen = Figure("d", "s", (OURS,), 1.0, of_rival=True)
    report = Report(
        "1", {}, False,
        (Result("x", "X", (held, missed, unbound, unseen)), Result("y", "Y", failure="z")),
    )  # fmt: skip
    assert report.summary == (
        "1 of 3 figures with a bound hold, 1 missed, 1 not shown, failed: y"
    )
    assert report.failed
    assert not replace(report, results=report.results[:1]).failed


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=500), st.floats(0.01, 1))
def test_a_quantile_is_not_passed_by_its_share(
    values: list[float], share: float
) -> None:
    found = quantile(values, share)
    assert found in values
    assert sum(each <= found for each in values) >= share * len(values) - 1e-6


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=500))
def test_a_distribution_rises_to_one(values: list[float]) -> None:
    drawn = distribution(values)
    assert drawn == sorted(drawn)
    assert len(drawn) <= 200
    assert drawn[0][0] == min(values)
    assert drawn[-1] == (max(values), 1)
